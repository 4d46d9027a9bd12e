"""Half flows that are over by our doing: whose leases must end, and who is refused."""

from __future__ import annotations

import pytest
from packets import FAMILIES, V4, Family, guarded, service

from paraglider.core import adoption, flow, verdict
from paraglider.core.adoption import ENDED_SECONDS
from paraglider.core.balancer import Balancer
from paraglider.core.flow import Flow, FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Event, Pool
from paraglider.core.service import ServiceMap
from paraglider.forward.dsr.carrier import LeaseCarrier
from paraglider.forward.one_sided import OneSidedDatapath

LEASE = 0x800

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])


def datapath(family: Family = V4) -> tuple[OneSidedDatapath, Pool]:
    """A packet path over three backends, with the marks 0, 1 and 2."""
    path, pool, _ = with_ended_leases(family)
    return path, pool


def with_ended_leases(family: Family = V4) -> tuple[OneSidedDatapath, Pool, list[int]]:
    """The same with the marks whose leases its carrier ended."""
    ended: list[int] = []
    made = service(family, protocols=(flow.TCP, flow.UDP), routed=True, strategy="maglev")
    marks = {backend: number for number, backend in enumerate(made.pool.backends)}
    flows = FlowTable(FlowTimeouts(), 100)
    carrier = LeaseCarrier(marks, LEASE, ended.append)
    return OneSidedDatapath(Balancer(ServiceMap([made])), flows, carrier), made.pool, ended


def sent(path: OneSidedDatapath, packet: bytes, now: float = 0.0) -> int | None:
    """The number of the backend that ``packet`` is marked for; None if it is refused."""
    found = path.handle(guarded(packet), 24, len(packet), 0, now)
    if found == verdict.PASS:
        return None
    assert found & 0xFF == verdict.MARK
    return found >> 8 & ~LEASE


def end(path: OneSidedDatapath, now: float) -> None:
    """End the one flow there is, as an operator would."""
    (one,) = (each for table in path.flows.forward.values() for each in table.values())
    assert isinstance(one, Flow)
    path.end(one, now)


def test_leases_of_lost_backends() -> None:
    """They end once when the backend is lost, and again when it is lost again."""
    path, pool, ended = with_ended_leases()
    path.carrier.sync(0.0)
    assert ended == []
    for turn in (1, 2):
        pool.apply(pool.backends[1], Event.CHECK_FAILED)
        for _ in range(2):
            path.carrier.sync(0.0)
        assert ended == [1] * turn
        pool.apply(pool.backends[1], Event.CHECK_PASSED)
        path.carrier.sync(0.0)
        assert ended == [1] * turn


@families
def test_a_flow_that_was_ended_by_hand(family: Family) -> None:
    """Its client is refused until it opens a new flow; the backend's leases end, each time."""
    path, _, ended = with_ended_leases(family)
    backends = []
    for start in (0.0, 10.0):
        sent(path, family.syn(), start)
        backends.append(sent(path, family.segment("A"), start + 1))
        end(path, start + 2)
        for _ in range(2):
            path.carrier.sync(start + 2)
        assert ended == backends
        for _ in range(2):
            assert sent(path, family.segment("A"), start + 3) is None
        assert len(path.flows) == 0


def test_a_client_that_is_silent_for_long_is_unknown() -> None:
    """Later its segments are treated as those of any unknown flow: they are adopted."""
    path, _ = datapath()
    sent(path, V4.syn())
    end(path, 1.0)
    assert sent(path, V4.segment("A"), 1.0 + ENDED_SECONDS) is not None


def test_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is removed."""
    monkeypatch.setattr(adoption, "ENDED_MOST", 2)
    path, _ = datapath()
    ports = (1001, 1002, 1003)
    for port in ports:
        sent(path, V4.syn(client_port=port))
        end(path, 1.0)
    found = [sent(path, V4.segment("A", client_port=port), 2.0) for port in ports]
    assert [each is None for each in found] == [False, True, True]


def test_a_datagram_starts_a_new_flow() -> None:
    """UDP has no beginning that could be waited for."""
    path, _, ended = with_ended_leases()
    backend = sent(path, V4.datagram())
    end(path, 1.0)
    path.carrier.sync(1.0)
    assert ended == [backend]
    assert sent(path, V4.datagram(), 2.0) == backend

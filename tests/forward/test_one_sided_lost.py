"""Half flows whose backend is lost: the client's next packet goes to another backend."""

from __future__ import annotations

import pytest
from packets import FAMILIES, Family, guarded, service

from paraglider.core import flow, verdict
from paraglider.core.balancer import Balancer
from paraglider.core.flow import FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import DATAGRAM_DRAIN, Event, Pool
from paraglider.core.service import ServiceMap
from paraglider.forward.dsr.carrier import LeaseCarrier
from paraglider.forward.one_sided import OneSidedDatapath

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
LEASE = 0x800


def datapath(family: Family, **changes: object) -> tuple[OneSidedDatapath, Pool]:
    """A packet path over three backends, with the marks 0, 1 and 2."""
    made = service(
        family,
        protocols=(flow.TCP, flow.UDP),
        echo=True,
        **changes,  # type: ignore[arg-type]
    )
    marks = {backend: number for number, backend in enumerate(made.pool.backends)}
    flows = FlowTable(FlowTimeouts(), 100)
    return OneSidedDatapath(
        Balancer(ServiceMap([made])), flows, LeaseCarrier(marks, LEASE)
    ), made.pool


def backend_of(path: OneSidedDatapath, packet: bytes) -> int:
    """The number of the backend that a packet is marked for."""
    fringe = 24
    found = path.handle(guarded(packet), fringe, len(packet), 0, 0.0)
    assert found & 0xFF == verdict.MARK
    return found >> 8 & ~LEASE


@families
@pytest.mark.parametrize("strategy", ["rr", "maglev"])
def test_a_segment_in_mid_stream_is_rejected(family: Family, strategy: str) -> None:
    """Each one, so that the client connects again; the flow is not adopted until a SYN comes."""
    path, pool = datapath(family, strategy=strategy)
    first = backend_of(path, family.syn())
    pool.apply(pool.backends[first], Event.CHECK_FAILED)
    segment = family.segment("A")
    for _ in range(2):
        assert path.handle(guarded(segment), 24, len(segment), 0, 0.0) == verdict.PASS
    assert len(path.flows) == 0
    assert backend_of(path, family.syn()) != first
    assert backend_of(path, segment) != first


@families
@pytest.mark.parametrize("kind", ["syn", "datagram", "echo"])
def test_the_next_packet_goes_elsewhere(family: Family, kind: str) -> None:
    """All further ones too."""
    path, pool = datapath(family)
    echo = bytes(family.echo(family.client, family.vip, reply=False, identifier=7))
    first, packet = {
        "syn": (family.syn(), family.syn()),
        "datagram": (family.datagram(), family.datagram()),
        "echo": (echo, echo),
    }[kind]
    assert backend_of(path, first) == 0
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    other = backend_of(path, packet)
    assert other != 0
    assert backend_of(path, packet) == other
    assert len(path.flows) == 1
    assert pool.backends[0].flows == 0


@families
def test_flows_that_are_kept(family: Family) -> None:
    """With ``on_down: keep`` only a SYN goes to another backend."""
    path, pool = datapath(family, on_down="keep")
    assert backend_of(path, family.syn()) == 0
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    assert backend_of(path, family.segment("A")) == 0
    assert backend_of(path, family.syn()) != 0


@families
def test_all_down_and_all_used(family: Family) -> None:
    """A repeated SYN stays at its backend, as if it were up."""
    path, pool = datapath(family, all_down="use_all")
    assert backend_of(path, family.syn()) == 0
    for each in pool.backends:
        pool.apply(each, Event.CHECK_FAILED)
    assert [backend_of(path, family.syn()) for _ in range(3)] == [0, 0, 0]


@families
@pytest.mark.parametrize("event", [Event.SET_MAINT, Event.SET_DRAIN])
def test_datagrams_leave_what_takes_no_new_flows(
    family: Family, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Datagrams and echoes go to another backend, and leases end; a live connection stays."""
    path, pool = datapath(family)
    for each in pool.backends[1:]:
        pool.set_weight(each, 0)
    echo = bytes(family.echo(family.client, family.vip, reply=False, identifier=7))
    packets = (family.syn(), family.datagram(), echo)
    assert [backend_of(path, packet) for packet in packets] == [0] * 3
    pool.apply(pool.backends[0], event)
    pool.set_weight(pool.backends[1], 1)
    pool.tick(0.0)
    pool.tick(DATAGRAM_DRAIN)
    ended: list[int] = []
    monkeypatch.setattr(path.carrier, "_end", ended.append)
    path.carrier.sync(0.0)
    assert ended == [0]
    packets = (family.segment("A"), family.datagram(), echo)
    assert [backend_of(path, packet) for packet in packets] == [0, 1, 1]

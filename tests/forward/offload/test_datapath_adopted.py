"""Segments in mid-stream of connections that the kernel does not know: marked for their backend."""

from __future__ import annotations

import pytest
from packets import FAMILIES, V4, Family, service

from paraglider.core import flow, verdict
from paraglider.core.balancer import Balancer
from paraglider.core.flow import FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Event
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.verdict import MARK, REASON_NAMES
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.offload.carrier import REMEMBERED, ConntrackCarrier
from paraglider.forward.offload.datapath import FirstPacketDatapath

MARKS = (0x51000001, 0x51800002, 0x51FFFFFF)

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])


def web(family: Family, **changes: object) -> VirtualService:
    """A service by a hash, whose flows the kernel carries."""
    given = {"strategy": "maglev", "ports": ((80, 80),), **changes}
    made = service(family, **given)  # type: ignore[arg-type]
    made.offloaded = True
    return made


def datapath(*services: VirtualService) -> FirstPacketDatapath:
    """A datapath for ``services``, the first of which has ``MARKS``."""
    marks = dict(zip(services[0].pool.backends, MARKS, strict=True))
    return FirstPacketDatapath(Balancer(ServiceMap(services)), ConntrackCarrier(marks))


def head(path: FirstPacketDatapath | NatDatapath, packet: bytes, now: float = 0.0) -> int:
    """The verdict."""
    return path.handle(bytearray(packet), 0, len(packet), 0, now)


def counted(path: FirstPacketDatapath | NatDatapath) -> dict[str, int]:
    """The reasons that were counted."""
    return {name: n for name, n in zip(REASON_NAMES, path.counts, strict=True) if n}


def adopted(made: VirtualService) -> list[int]:
    """The flows adopted for each backend."""
    return [backend.adopted for backend in made.pool.backends]


@families
def test_it_goes_where_its_beginning_went(family: Family) -> None:
    """As at another balancer with the same file; the flow is counted once, and reported."""
    made = web(family)
    here, told = datapath(made), []
    here.opened = lambda _protocol, key, backend: told.append((key[-4:-2], backend))
    for port in range(2000, 2020):
        elsewhere = head(datapath(web(family)), family.syn(client_port=port))
        for flags in ("A", "PA"):
            assert head(here, family.segment(flags, client_port=port)) == elsewhere
    assert sum(adopted(made)) == sum(b.conns for b in made.pool.backends) == len(told) == 20
    assert [int.from_bytes(port, "big") for port, _ in told] == [*range(2000, 2020)]
    assert counted(here) == {}


@families
@pytest.mark.parametrize("flags", ["R", "RA", "S", "SA", "F", ""])
def test_others_begin_nothing_in_mid_stream(family: Family, flags: str) -> None:
    """A SYN is a new flow's; what has no ACK, or a RST, is no sign of a flow."""
    made = web(family)
    path = datapath(made)
    if flags != "S":
        assert head(path, family.segment(flags)) == verdict.PASS
        assert counted(path) == {"no_flow": 1}
    else:
        assert head(path, family.syn()) & 0xFF == MARK
    assert adopted(made) == [0, 0, 0]


@pytest.mark.parametrize("changes", [{"strategy": "rr"}, {"adopts": False}])
def test_where_nothing_is_adopted(changes: dict[str, object]) -> None:
    """It passes, and the host answers RST."""
    path = datapath(web(V4, **changes))
    assert head(path, V4.segment("A")) == verdict.PASS
    assert counted(path) == {"no_flow": 1}


def test_a_connection_of_this_balancer() -> None:
    """One that was decided here a moment ago keeps its backend, whatever the hash is by now; if
    that is lost, its client gets RST, until nothing is known of it any more.
    """
    made = web(V4)
    path = datapath(made)
    first = head(path, V4.syn())
    backend = made.pool.backends[MARKS.index(first >> 8)]
    made.pool.apply(backend, Event.SET_DRAIN)
    assert head(path, V4.segment("A")) == first
    made.pool.apply(backend, Event.CHECK_FAILED)
    assert backend.lost
    assert head(path, V4.segment("A")) == verdict.PASS
    assert counted(path) == {"flow_lost": 1}
    path.carrier.sync(REMEMBERED)
    path.carrier.sync(2 * REMEMBERED)
    assert head(path, V4.segment("A"), 2 * REMEMBERED) not in (first, verdict.PASS)


def test_no_more_than_the_limit_in_a_second() -> None:
    """What is beyond is dropped and counted: its client repeats it. SYNs are not limited by it."""
    made = web(V4)
    path = datapath(made)
    path.adopter.limit = 3
    found = [head(path, V4.segment("A", client_port=3000 + n), 1.0) for n in range(10)]
    assert [each & 0xFF == MARK for each in found] == [True] * 3 + [False] * 7
    assert set(found[3:]) == {verdict.DROP}
    assert counted(path) == {"adoption_limit": 7}
    assert head(path, V4.segment("A", client_port=3000), 1.5) == found[0]
    assert head(path, V4.segment("A", client_port=3009), 2.0) & 0xFF == MARK
    assert head(path, V4.syn(client_port=3020), 1.5) & 0xFF == MARK


@families
def test_beside_nat(family: Family) -> None:
    """nat's datapath, which gets the packets, adopts no flow of a service that it does not have."""
    carried, rewritten = web(family), service(family, strategy="maglev", ports=((81, 81),))
    first = datapath(carried, rewritten)
    path = NatDatapath(first.balancer, FlowTable(FlowTimeouts(), 10), first.decide)
    assert head(path, family.segment("A")) == head(datapath(web(family)), family.syn())
    assert (sum(adopted(carried)), len(path.flows)) == (1, 0)
    assert head(path, family.segment("A", 81)) == verdict.REWRITTEN
    assert len(path.flows.forward[flow.TCP]) == 1
    assert counted(path) == {}

"""The packet path of offload: which packets are decided about, and that one stays decided."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import FAMILIES, MANY, V4, Family, guarded, service

from paraglider.core import flow, verdict
from paraglider.core.affinity import Affinity
from paraglider.core.balancer import Balancer
from paraglider.core.flow import PROTOCOL_NAMES, FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend, Event
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.verdict import MARK, REASON_NAMES
from paraglider.forward.datapath import HEAD
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.offload.carrier import MOST_REMEMBERED, REMEMBERED, ConntrackCarrier
from paraglider.forward.offload.datapath import FirstPacketDatapath

MARKS = (0x51000001, 0x51800002, 0x51FFFFFF)


def offloaded(
    family: Family, protocols: tuple[int, ...] = (flow.TCP,), **changes: object
) -> VirtualService:
    """A service of three backends whose flows the kernel carries."""
    made = service(family, protocols=protocols, **changes)  # type: ignore[arg-type]
    made.offloaded = True
    return made


def datapath(made: VirtualService, **changes: float) -> FirstPacketDatapath:
    """A datapath for one service, with ``MARKS``."""
    marks = dict(zip(made.pool.backends, MARKS, strict=False))
    carrier = ConntrackCarrier(marks, **changes)  # type: ignore[arg-type]
    return FirstPacketDatapath(Balancer(ServiceMap([made])), carrier)


def head(path: FirstPacketDatapath | NatDatapath, packet: bytes, now: float = 0.0) -> int:
    """The verdict for the head of ``packet``, which must stay as it is."""
    cut = packet[:HEAD]
    buf = guarded(cut)
    found = path.handle(buf, (len(buf) - len(cut)) // 2, len(cut), 0, now)
    assert bytes(buf)[24:-24] == cut
    return found


def marked(mark: int) -> int:
    """The verdict that gives a packet ``mark``."""
    return MARK | mark << 8


def counted(path: FirstPacketDatapath) -> dict[str, int]:
    """The reasons that were counted."""
    return {name: n for name, n in zip(REASON_NAMES, path.counts, strict=True) if n}


@pytest.mark.parametrize("family", FAMILIES)
def test_first_packets_get_the_next_backends_mark(family: Family) -> None:
    """A SYN, a datagram, an echo request: each opens a flow, and the strategy decides."""
    everything = offloaded(family, (flow.TCP, flow.UDP), echo=True)
    path = datapath(everything)
    packets = (
        family.syn(),
        family.datagram(),
        bytes(family.echo(family.client, family.vip, reply=False, identifier=7)),
    )
    assert [head(path, packet) for packet in packets] == [marked(mark) for mark in MARKS]
    assert counted(path) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_is_enough(family: Family) -> None:
    """A datagram of which the queue copied 128 bytes is decided about like a short one."""
    path = datapath(offloaded(family, (flow.UDP,)))
    long = family.datagram()
    size = len(long) + 1000
    if family.number == 4:
        long = long[:2] + size.to_bytes(2, "big") + long[4:]
    else:
        long = long[:4] + (size - 40).to_bytes(2, "big") + long[6:]
    assert head(path, long + bytes(1000)) == marked(MARKS[0])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flags", ["A", "R", "F", "SA", "SF", "PA", ""])
def test_other_segments_open_nothing(family: Family, flags: str) -> None:
    """Only a SYN opens a flow; others pass, and the local stack answers RST."""
    path = datapath(offloaded(family))
    assert head(path, family.segment(flags)) == verdict.PASS
    assert counted(path) == {"no_flow": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_no_services_passes(family: Family) -> None:
    """Another VIP, another port, an echo reply."""
    path = datapath(offloaded(family, ports=((80, 80),)))
    assert head(path, family.syn(81)) == verdict.PASS
    assert head(path, family.syn(vip=family.other_vip)) == verdict.PASS
    reply = family.echo(family.client, family.vip, reply=True, identifier=7)
    assert head(path, bytes(reply)) == verdict.PASS
    assert counted(path) == {"no_service": 2, "no_flow": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_segment_cut_before_its_flags(family: Family) -> None:
    """Whether it is a SYN cannot be known: it is dropped, and counted."""
    path = datapath(offloaded(family))
    cut = (20 if family.number == 4 else 40) + 13
    assert head(path, family.syn()[:cut]) == verdict.DROP
    assert counted(path) == {"truncated": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_repeated_first_packet_keeps_its_backend(family: Family) -> None:
    """While it is stored; another port of the client is another flow."""
    path = datapath(offloaded(family))
    first = head(path, family.syn(), 100.0)
    assert head(path, family.syn(client_port=40001), 100.0) != first
    for later in (101.0, 103.0, 107.0, 115.0):
        assert head(path, family.syn(), later) == first
    backend = path.balancer.services.services[0].pool.backends[0]
    assert (backend.conns, backend.unanswered) == (1, 4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beside", [False, True])
def test_a_port_that_is_used_again_is_another_flow(family: Family, beside: bool) -> None:
    """A SYN with another sequence number gets a new decision, is counted, and counts against no
    backend, also if the queue is shared with other methods.
    """
    made = offloaded(family)
    path: FirstPacketDatapath | NatDatapath = datapath(made)
    if beside:
        path = NatDatapath(path.balancer, FlowTable(FlowTimeouts(), 10), path.decide)
    found = [head(path, family.syn(seq=seq)) for seq in (7, 7, 2**32 - 1, 2**32 - 1, 7)]
    assert found == [marked(MARKS[n]) for n in (0, 0, 1, 1, 2)]
    assert [(b.conns, b.unanswered) for b in made.pool.backends] == [(1, 1), (1, 1), (1, 0)]


def test_a_decision_is_forgotten() -> None:
    """After two generations, by traffic or by the clock; and the young ones of a long silence."""
    path = datapath(offloaded(V4))
    head(path, V4.syn(), 100.0)
    path.carrier.sync(100.0 + REMEMBERED)
    assert len(path.carrier) == 1
    path.carrier.sync(100.0 + 2 * REMEMBERED)
    assert len(path.carrier) == 0
    head(path, V4.syn(), 200.0)
    path.carrier.sync(200.0 + 3 * REMEMBERED)
    assert len(path.carrier) == 0


def test_what_is_remembered_is_bounded() -> None:
    """A flood of SYNs makes the generations shorter, and no more."""
    path = datapath(offloaded(V4), bound=100)
    for port in range(1000):
        head(path, V4.syn(client_port=1024 + port), 100.0)
    assert len(path.carrier) <= 200
    last = head(path, V4.syn(client_port=1024 + 999), 100.0)
    assert last == head(path, V4.syn(client_port=1024 + 999), 100.0)
    assert MOST_REMEMBERED > 10_000


def test_a_backend_that_is_no_longer_ready_loses_what_was_decided() -> None:
    """A repeated SYN then gets another; with none ready the local stack refuses it."""
    made = offloaded(V4)
    path = datapath(made)
    assert head(path, V4.syn()) == marked(MARKS[0])
    made.pool.apply(made.pool.backends[0], Event.CHECK_FAILED)
    assert head(path, V4.syn()) in (marked(MARKS[1]), marked(MARKS[2]))
    for other in made.pool.backends[1:]:
        made.pool.set_weight(other, 0)
    assert head(path, V4.syn()) == verdict.PASS
    assert counted(path) == {"refused": 1}


@pytest.mark.parametrize(("all_down", "outcome"), [("use_all", "mark"), ("reject", "refused")])
def test_all_backends_down(all_down: str, outcome: str) -> None:
    """A first packet gets a backend, or none: then the local stack refuses TCP and UDP. It would
    answer an echo itself, so that is dropped.
    """
    made = offloaded(V4, protocols=(flow.TCP, flow.UDP), echo=True, all_down=all_down)
    path = datapath(made)
    for each in made.pool.backends:
        made.pool.apply(each, Event.CHECK_FAILED)
    echo = bytes(V4.echo(V4.client, V4.vip, reply=False, identifier=7))
    verdicts = [head(path, packet) for packet in (V4.syn(), V4.datagram(), echo)]
    if outcome == "mark":
        assert set(verdicts) == {marked(mark) for mark in MARKS}
        assert counted(path) == {}
    else:
        assert verdicts == [verdict.PASS, verdict.PASS, verdict.DROP]
        assert counted(path) == {"refused": 2, "no_backend": 1}


def test_live_flows_are_those_counted_and_those_decided_since() -> None:
    """A burst between two counts counts by itself; a count takes its place."""
    made = offloaded(V4, strategy="weighted")
    path = datapath(made)
    live = {MARKS[0]: 5, MARKS[1]: 0, MARKS[2]: 4}
    given: list[dict[int, int]] = []

    def count(decided: Mapping[int, int]) -> dict[int, int]:
        given.append(dict(decided))
        return live

    path.carrier.live = count
    path.carrier.sync(0.0)
    picked = [head(path, V4.syn(client_port=port)) for port in range(2000, 2009)]
    # Nine more over 5, 0 and 4 make six each.
    assert [picked.count(marked(mark)) for mark in MARKS] == [1, 6, 2]
    assert [b.flows for b in made.pool.backends] == [6, 6, 6]
    path.carrier.sync(0.1)
    assert [b.flows for b in made.pool.backends] == [5, 0, 4]
    assert given == [dict.fromkeys(MARKS, 0), dict(zip(MARKS, (1, 6, 2), strict=True))]


def test_affinity_counts_from_the_last_new_flow() -> None:
    """A client keeps its backend while the time since its last new flow is not over."""
    made = offloaded(V4, affinity=Affinity(300, 10))
    path = datapath(made)
    first = head(path, V4.syn(client_port=2000), 0.0)
    assert head(path, V4.syn(client_port=2001), 200.0) == first
    assert head(path, V4.syn(client_port=2002), 400.0) == first
    assert head(path, V4.syn(client_port=2003), 701.0) != first


def test_new_flows_are_reported_once() -> None:
    """Protocol, key and backend, for the log of ``-D``; a repeated packet is no new flow."""
    made = offloaded(V4)
    path = datapath(made)
    told: list[tuple[str, Backend]] = []
    path.opened = lambda protocol, _key, to: told.append((PROTOCOL_NAMES[protocol], to))
    head(path, V4.syn())
    head(path, V4.syn())
    assert told == [("tcp", made.pool.backends[0])]


@pytest.mark.parametrize("family", FAMILIES)
def test_beside_nat_in_one_queue(family: Family) -> None:
    """The service that is offloaded is marked, untouched; the other is rewritten, and has flows."""
    carried = offloaded(family, (flow.TCP, flow.UDP), ports=((80, 80),))
    rewritten = service(family, ports=((81, 81),))
    balancer = Balancer(ServiceMap([carried, rewritten]))
    marks = dict(zip(carried.pool.backends, MARKS, strict=True))
    first = FirstPacketDatapath(balancer, ConntrackCarrier(marks))
    path = NatDatapath(balancer, FlowTable(FlowTimeouts(), 10), first.decide)
    assert head(path, family.syn(80)) == marked(MARKS[0])
    assert head(path, family.datagram(80)) == marked(MARKS[1])
    assert head(path, family.segment("A", 80)) == verdict.PASS
    assert len(path.flows) == 0
    packet = family.syn(81)
    buf = bytearray(packet)
    assert path.handle(buf, 0, len(buf), 0, 0.0) == verdict.REWRITTEN
    assert bytes(buf) != packet
    assert len(path.flows) == 1


@MANY
@given(st.binary(max_size=HEAD), st.sampled_from([b"", b"\x45", b"\x60"]))
def test_no_bytes_raise(packet: bytes, start: bytes) -> None:
    """All packets get a verdict, and nothing outside the head is read."""
    path = datapath(offloaded(V4, (flow.TCP, flow.UDP), echo=True))
    found = head(path, start + packet[len(start) :])
    assert found in (verdict.PASS, verdict.DROP, *map(marked, MARKS))

"""Flows as packets pass: states, time, backends, keys in use.

The kinds of packets are in ``test_datapath``, refusals in ``test_datapath_refusals``. A script such
as ``c:S b:SA c:A`` reads: the client sends a SYN, the backend SYN and ACK, the client an ACK.
"""

from __future__ import annotations

import pytest
from packets import FAMILIES, V4, Family, backend, nat, packed, run, service
from scapy.layers.inet import UDP
from scapy.packet import Raw

from paraglider.core import flow, verdict
from paraglider.core.affinity import Affinity
from paraglider.core.checksum import KERNELS
from paraglider.core.flow import Flow, FlowTimeouts
from paraglider.core.flow_states import (
    GONE,
    ICMP_OPEN,
    STATE_NAMES,
    SYN_SENT,
    UDP_ANSWERED,
    UDP_NEW,
    UDP_OPEN,
)
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import DATAGRAM_DRAIN, Backend, Event
from paraglider.core.service import VirtualService
from paraglider.core.verdict import DROP, PASS, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
WEB = ((80, 80),)


def web(family: Family = V4, *, direct: bool = False, one: bool = True) -> VirtualService:
    """A TCP service on port 80, over one backend or all three."""
    backends = [backend(family.backends[0])] if one else []
    return service(family, ports=WEB, backends=backends, direct=direct)


def only(table: FlowTable) -> Flow:
    """The one flow of the table."""
    flows = [each for protocol in table.forward.values() for each in protocol.values()]
    assert len(flows) == len(table) == 1
    return flows[0]


def play(path: NatDatapath, script: str, now: float = 0.0, family: Family = V4) -> None:
    """Send the segments of ``script``, each of which has to be rewritten."""
    for step in script.split():
        who, flags = step.split(":")
        packet = family.segment(flags) if who == "c" else family.answer(flags, family.backends[0])
        assert run(path, packet, now=now)[0] == REWRITTEN, step


# TCP

VIA = [
    ("a SYN alone is half open", "c:S", "syn-sent"),
    ("the backend's answer", "c:S b:SA", "syn-received"),
    ("the handshake establishes", "c:S b:SA c:A", "established"),
    ("data with the last ACK establishes too", "c:S b:SA c:PA", "established"),
    ("SYN with ECN set-up is a SYN", "c:SEC b:SA c:A", "established"),
    ("a repeated SYN changes nothing", "c:S c:S b:SA c:S b:SA c:A", "established"),
    ("an ACK that no answer went before", "c:S c:A", "syn-sent"),
    ("a backend that has the connection says so", "c:S b:A c:A", "established"),
    ("data keeps a flow established", "c:S b:SA c:A c:PA b:PA b:A", "established"),
    ("a SYN on an established flow changes nothing", "c:S b:SA c:A c:S b:A", "established"),
    ("the client's FIN", "c:S b:SA c:A c:FA", "fin-client"),
    ("the backend's FIN", "c:S b:SA c:A b:FA", "fin-backend"),
    ("half-closed it goes on", "c:S b:SA c:A c:FA b:A b:PA c:A b:PA", "fin-client"),
    ("half-closed by the other", "c:S b:SA c:A b:FA c:A c:PA b:A c:PA", "fin-backend"),
    ("both FINs", "c:S b:SA c:A c:FA b:FA", "last-ack"),
    ("both FINs, the backend first", "c:S b:SA c:A b:FA c:A c:FA", "last-ack-backend"),
    ("and the last ACK", "c:S b:SA c:A c:FA b:FA c:A", "time-wait"),
    ("of the backend", "c:S b:SA c:A b:FA c:FA b:A", "time-wait"),
    ("closed stays closed", "c:S b:SA c:A c:FA b:A b:FA c:A b:PA c:PA", "time-wait"),
    ("a SYN on a half-closed flow", "c:S b:SA c:A c:FA c:S", "fin-client"),
    ("the client's RST", "c:S b:SA c:A c:R", "client-reset"),
    ("the backend's RST", "c:S b:SA c:A b:RA", "reset"),
    ("the client goes on after a RST", "c:S b:SA c:A c:R c:PA", "established"),
    ("the backend goes on after a RST", "c:S b:SA c:A c:R b:PA", "established"),
    ("and after its own", "c:S b:SA c:A b:R c:PA", "established"),
    ("a closed port answers RST", "c:S b:RA", "reset"),
    ("and who goes on has no flow by that", "c:S b:RA c:A", "reset"),
    ("a client gives up half-way", "c:S b:SA c:R", "client-reset"),
    ("a SYN with FIN opens nothing new", "c:S b:SA c:A c:FA c:SF", "fin-client"),
    ("a SYN with ACK opens nothing new", "c:S b:SA c:A c:FA c:SA", "fin-client"),
]


@families
@pytest.mark.parametrize(("script", "state"), [row[1:] for row in VIA], ids=[row[0] for row in VIA])
def test_tcp_states(family: Family, script: str, state: str) -> None:
    """The segments of both ends put the flow into the state whose timeout it is to have."""
    path = nat(web(family))
    play(path, script, family=family)
    assert STATE_NAMES[only(path.flows).state] == state


DIRECT = [
    ("a SYN alone", "c:S", "syn-sent"),
    ("the client goes on", "c:S c:A", "unconfirmed"),
    ("a repeated SYN", "c:S c:S", "syn-sent"),
    ("a FIN", "c:S c:A c:FA", "client-done"),
    ("a RST", "c:S c:R", "client-reset"),
]


@pytest.mark.parametrize(
    ("script", "state"), [row[1:] for row in DIRECT], ids=[row[0] for row in DIRECT]
)
def test_tcp_states_with_direct_return(script: str, state: str) -> None:
    """If the backend's answers bypass this host, an ACK proves nothing (see
    the tests of ``dsr``).
    """
    path = nat(web(direct=True))
    play(path, script)
    assert STATE_NAMES[only(path.flows).state] == state


@families
def test_a_repeated_syn_goes_to_the_same_backend(family: Family) -> None:
    """It belongs to the same flow: no second backend is picked."""
    path = nat(web(family, one=False))
    first = run(path, family.syn())
    assert [run(path, family.syn(), now=n) for n in (1.0, 3.0, 7.0)] == [first] * 3
    assert only(path.flows).translation.backend.conns == 1
    assert only(path.flows).translation.backend.unanswered == 3


@pytest.mark.parametrize(
    ("script", "unanswered", "refused"),
    [
        ("c:S b:SA c:A", 0, 0),
        ("c:S c:S c:S", 2, 0),
        ("c:S b:SA c:S b:SA c:A", 0, 0),
        ("c:S b:RA", 0, 1),
        ("c:S c:S b:RA c:S b:RA", 1, 2),
        ("c:S b:SA c:A c:S", 0, 0),
        ("c:S b:SA c:A b:R", 0, 0),
        ("c:S c:R b:RA", 0, 0),
    ],
)
def test_what_speaks_against_a_backend(script: str, unanswered: int, refused: int) -> None:
    """An opening that comes again while there was no answer, and one that is answered by RST."""
    path = nat(web())
    play(path, script)
    found = path.balancer.services.services[0].pool.backends[0]
    assert (found.unanswered, found.refused) == (unanswered, refused)


@pytest.mark.parametrize(
    ("end", "another"),
    [("c:FA b:FA c:A", True), ("b:FA c:FA b:A", True), ("b:R", True), ("c:R", False)],
)
def test_a_syn_on_a_closed_flow_opens_a_new_one(end: str, another: bool) -> None:
    """The client reuses its port: a new flow with a new backend, except after a RST that may be
    forged.
    """
    path = nat(web(one=False))
    play(path, f"c:S b:SA c:A {end}")
    old = only(path.flows)
    assert run(path, V4.syn())[0] == REWRITTEN
    new = only(path.flows)
    assert (old.state, new.state) == (GONE, SYN_SENT)
    backends = path.balancer.services.services[0].pool.backends
    assert [b.opening for b in backends] == ([0, 1, 0] if another else [1, 0, 0])


@families
@pytest.mark.parametrize("end", ["R", "FA", "A"])
@pytest.mark.parametrize("direct", [False, True])
def test_forged_segments_and_a_syn_move_no_live_flow(
    family: Family, end: str, direct: bool
) -> None:
    """Any sequence number but the few that the backend would take; its own TCP judges the SYN."""
    path = nat(web(family, one=False, direct=direct))
    for number, (flags, ack) in enumerate((("S", 0), ("A", 1), ("A", 2), ("A", 3))):
        run(path, family.segment(flags, seq=1000, ack=ack), now=number)
        if not direct:
            answer = family.answer("SA" if flags == "S" else "A", family.backends[0], ack=1001)
            run(path, answer, now=number)
    live = only(path.flows)
    assert STATE_NAMES[live.state] == "established"
    for forged in (0x7000_0000, 0x9000_0000, 50_000_000):
        run(path, family.segment(end, seq=forged), now=9.0)
        assert run(path, family.segment("S", seq=forged), now=9.0)[0] == REWRITTEN
    assert only(path.flows) is live
    assert STATE_NAMES[live.state] == ("established" if end != "FA" or direct else "fin-client")
    path.flows.expire(9.0 + 7000)
    assert only(path.flows) is live


def test_a_blind_client_opens_nothing() -> None:
    """An ACK that does not acknowledge the backend's SYN leaves the flow half open."""
    path = nat(web())
    run(path, V4.segment("S", seq=1000))
    run(path, V4.answer("SA", V4.backends[0], seq=0x5000_0000, ack=1001))
    for blind in (1, 0x4FE0_0000, 0xFFFF_FFFF):
        run(path, V4.segment("A", seq=1001, ack=blind))
        assert STATE_NAMES[only(path.flows).state] == "syn-received"
    run(path, V4.segment("A", seq=1001, ack=0x5000_0001))
    assert STATE_NAMES[only(path.flows).state] == "established"


def test_a_syn_on_a_closed_flow_without_backend() -> None:
    """The old flow is over either way; the new one is refused, at once by the local stack."""
    path = nat(web())
    play(path, "c:S b:SA c:A c:FA b:FA c:A")
    (pool,) = (s.pool for s in path.balancer.services.services)
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    assert run(path, V4.syn()) == (PASS, V4.syn())
    assert len(path.flows) == 0


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "RA", "SA", "SF", "SR", ""])
def test_a_segment_of_no_flow_passes(flags: str) -> None:
    """All segments except a SYN alone pass to the local stack, which answers
    RST; they are counted.
    """
    path = nat(web())
    packet = V4.segment(flags)
    assert run(path, packet) == (PASS, packet)
    assert path.counts[verdict.NO_FLOW] == sum(path.counts) == 1
    assert len(path.flows) == 0


def test_a_backend_that_leaves_keeps_its_flows() -> None:
    """Packets of a live flow go to its backend in any state."""
    path = nat(web(one=False))
    play(path, "c:S b:SA c:A")
    pool = path.balancer.services.services[0].pool
    for event in (Event.SET_DRAIN, Event.SET_MAINT):
        pool.apply(pool.backends[0], event)
        play(path, "c:PA b:PA")


# UDP and echo


@families
@pytest.mark.parametrize("event", [Event.SET_MAINT, Event.SET_DRAIN])
def test_datagrams_leave_what_takes_no_new_flows(family: Family, event: Event) -> None:
    """Datagrams of a client that never changes its port, and pings, go to another backend, at once
    or after the drain timeout. The segments of a live connection do not.
    """
    path = nat(service(family, protocols=(flow.TCP, flow.UDP), echo=True))
    pool = path.balancer.services.services[0].pool
    for each in pool.backends[1:]:
        pool.set_weight(each, 0)
    echo = bytes(family.echo(family.client, family.vip, reply=False, identifier=7))
    for packet in (family.syn(), family.datagram(), echo):
        assert run(path, packet)[0] == REWRITTEN
    pool.apply(pool.backends[0], event)
    pool.set_weight(pool.backends[1], 1)
    pool.tick(0.0)
    pool.tick(DATAGRAM_DRAIN)
    for packet in (family.segment("A"), family.datagram(), echo):
        assert run(path, packet)[0] == REWRITTEN
    found = {f.protocol: pool.backends.index(f.translation.backend) for f in path.flows.walk()}
    assert found.pop(flow.TCP) == 0
    assert list(found.values()) == [1, 1]


def dns(family: Family, *, direct: bool = False) -> VirtualService:
    """A UDP service on port 53 with one backend."""
    backends = [backend(family.backends[0])]
    return service(
        family, protocols=(flow.UDP,), ports=((53, 53),), backends=backends, direct=direct
    )


def reply(family: Family) -> bytes:
    """The backend's answer to ``family.datagram()``."""
    header = UDP(sport=53, dport=40000)
    return bytes(family.ip(family.backends[0], family.client) / header / Raw(b"here"))


@families
def test_udp_opens_with_a_reply(family: Family) -> None:
    """Datagrams of the client alone leave a flow new; one of the backend opens it."""
    path = nat(dns(family))
    for _ in range(2):
        assert run(path, family.datagram())[0] == REWRITTEN
        assert only(path.flows).state == UDP_NEW
    steps = (
        (reply(family), UDP_ANSWERED),
        (reply(family), UDP_ANSWERED),
        (family.datagram(), UDP_OPEN),
        (reply(family), UDP_OPEN),
    )
    for packet, state in steps:
        assert run(path, packet)[0] == REWRITTEN
        assert only(path.flows).state == state


@pytest.mark.parametrize("direct", [False, True])
def test_an_answered_query_ends_soon(direct: bool) -> None:
    """With ``udp_reply`` a flow lasts that long after the last datagram, and an unanswered one the
    usual time; if answers are not seen, as if there had been one.
    """
    backends = [backend(V4.backends[0])]
    path = nat(
        service(
            V4,
            protocols=(flow.UDP,),
            ports=((53, 53),),
            backends=backends,
            direct=direct,
            udp_reply=5,
        )
    )
    run(path, V4.datagram(), now=0.0)
    if not direct:
        path.flows.expire(100.0)
        assert run(path, reply(V4), now=100.0)[0] == REWRITTEN
    begin = 0.0 if direct else 100.0
    path.flows.expire(begin + 4.5)
    assert run(path, V4.datagram(), now=begin + 4.5)[0] == REWRITTEN
    path.flows.expire(begin + 9)
    assert len(path.flows) == 1
    path.flows.expire(begin + 11)
    assert len(path.flows) == 0


@families
def test_echo_has_one_state(family: Family) -> None:
    """Request and reply only refresh the flow."""
    path = nat(service(family, backends=[backend(family.backends[0])], echo=True))
    request = family.echo(family.client, family.vip, reply=False, identifier=5)
    answer = family.echo(family.backends[0], family.client, reply=True, identifier=5)
    for now, packet in ((1.0, request), (2.0, answer)):
        assert run(path, bytes(packet), now=now)[0] == REWRITTEN
        assert (only(path.flows).state, only(path.flows).seen) == (ICMP_OPEN, now)


@families
def test_packets_of_either_end_refresh(family: Family) -> None:
    """A flow was last seen when its last packet passed, whichever way that went."""
    path = nat(web(family), dns(family), bound=10)
    play(path, "c:S", 1.0, family)
    run(path, family.datagram(), now=1.0)
    for now, (segment, datagram) in enumerate(
        [
            (family.answer("SA", family.backends[0]), reply(family)),
            (family.segment("A"), family.datagram()),
            (family.answer("A", family.backends[0]), reply(family)),
            (family.segment("FA"), family.datagram()),
        ],
        start=2,
    ):
        run(path, segment, now=now)
        run(path, datagram, now=now)
        seen = {f.seen for table in path.flows.forward.values() for f in table.values()}
        assert seen == {now}


def test_timeouts_by_state() -> None:
    """The timeout of each state counts from the last packet."""
    limits = FlowTimeouts(syn=240, established=7440, closed_rst=10, closed_fin=100)
    for script, lasts in (
        ("c:S", 240),
        ("c:S b:SA", 240),
        ("c:S b:SA c:A", 7440),
        ("c:S b:SA c:A c:FA", 7440),
        ("c:S b:SA c:A b:FA", 7440),
        ("c:S b:SA c:A b:FA c:FA", 240),
        ("c:S b:SA c:A b:FA c:FA b:A", 100),
        ("c:S b:SA c:A b:R", 10),
        ("c:S b:SA c:A c:R", 10),
    ):
        path = nat(web(), timeouts=limits)
        play(path, script, now=50)
        path.flows.expire(50 + lasts - 0.5)
        assert len(path.flows) == 1
        path.flows.expire(50 + lasts + 1)
        assert len(path.flows) == 0


# Counters, affinity, keys in use


@families
def test_packets_and_bytes_are_counted(family: Family) -> None:
    """IP packets and their bytes, each way, in the translation between service and backend."""
    path = nat(web(family))
    play(path, "c:S b:SA c:A", family=family)
    between = only(path.flows).translation
    size = len(family.segment("A"))
    assert (between.packets_out, between.bytes_out) == (2, 2 * size)
    assert (between.packets_back, between.bytes_back) == (1, size)
    assert sum(path.counts) == 0


def test_new_flows_are_told() -> None:
    """``opened`` is called once for every flow, when it is in the table."""
    path = nat(web())
    heard: list[tuple[int, bytes, Backend]] = []
    path.opened = lambda *told: heard.append(told)
    play(path, "c:S b:SA c:A c:PA")
    flow = only(path.flows)
    assert heard == [(flow.protocol, flow.forward_key, flow.translation.backend)]


@families
def test_a_client_keeps_its_backend(family: Family) -> None:
    """With affinity, further flows of a client go to the backend of its first one."""
    keeping = service(family, ports=WEB, affinity=Affinity(60, 100))
    path = nat(keeping)
    for number in range(6):
        run(path, family.syn(client_port=50000 + number))
    assert [each.opening for each in keeping.pool.backends] == [6, 0, 0]


@families
def test_a_client_leaves_a_draining_backend(family: Family) -> None:
    """Its flows stay, new ones go to another backend, which is then the one it keeps."""
    keeping = service(family, ports=WEB, affinity=Affinity(60, 100))
    path = nat(keeping)
    first, *_ = keeping.pool.backends
    run(path, family.syn(client_port=50000))
    keeping.pool.apply(first, Event.SET_DRAIN)
    for number in (1, 2):
        run(path, family.syn(client_port=50000 + number))
    assert [each.opening for each in keeping.pool.backends] == [1, 2, 0]
    keeping.pool.apply(first, Event.SET_READY)
    run(path, family.syn(client_port=50009))
    assert [each.opening for each in keeping.pool.backends] == [1, 3, 0]


def test_affinity_outlives_the_flows_for_a_while() -> None:
    """A client that comes back within the time finds its backend, later the next in turn."""
    keeping = service(V4, ports=WEB, affinity=Affinity(60, 100))
    path = nat(keeping, timeouts=FlowTimeouts(syn=10))
    picked = []
    for now in (0.0, 65.0, 200.0):  # the flow ends at 10, and again at 75
        run(path, V4.syn(), now=now)
        picked.append(only(path.flows).translation.backend.name)
        path.flows.expire(now + 11)
        assert len(path.flows) == 0
    first, second, _ = V4.backends
    assert picked == [first, first, second]


def sharing(family: Family, count: int) -> tuple[VirtualService, VirtualService]:
    """Two services, of two VIPs, over the same ``count`` backends."""

    def over(vip: str) -> VirtualService:
        backends = [backend(address) for address in family.backends[:count]]
        return service(family, vip=vip, ports=WEB, backends=backends)

    return over(family.vip), over(family.other_vip)


@families
def test_shared_backends_never_share_a_reverse_key(family: Family) -> None:
    """Two flows of one client port through two VIPs go to two backends: answers differ."""
    one, two = sharing(family, 3)
    path = nat(one, two)
    for port in range(50000, 50030):
        for vip in (family.vip, family.other_vip):
            assert run(path, family.syn(client_port=port, vip=vip))[0] == REWRITTEN
    answers = path.flows.reverse[flow.TCP]
    assert len(answers) == len(path.flows) == 60
    for key in answers:
        each = answers[key]
        assert each.translation.backend_address == key[: len(each.translation.vip)]
        assert each.translation.reverse_key(each.forward_key) == key


@families
def test_a_collision_only_when_all_are_taken(family: Family) -> None:
    """A third flow of a client port finds both backends taken, and is dropped; others are not."""
    one, two = sharing(family, 2)
    third = service(family, vip=family.router, ports=WEB, backends=one.pool.backends)
    path = nat(one, two, third)
    assert run(path, family.syn())[0] == REWRITTEN
    assert run(path, family.syn(vip=family.other_vip))[0] == REWRITTEN
    refused = family.syn(vip=family.router)
    assert run(path, refused) == (DROP, refused)
    assert path.counts[verdict.COLLISION] == 1
    assert run(path, family.syn(vip=family.router, client_port=40001))[0] == REWRITTEN


@families
def test_a_flood_of_openings_takes_no_clients_backend(family: Family) -> None:
    """A client that was served returns to its backend, though forged SYNs fill the table often."""
    keeping = service(family, ports=WEB, affinity=Affinity(600, 20))
    path = nat(keeping, bound=20)
    play(path, "c:S", family=family)
    kept = only(path.flows).translation.backend
    answers = [family.answer(flags, kept.name) for flags in ("SA", "R")]
    for packet in (answers[0], family.segment("A"), answers[1]):
        assert run(path, packet)[0] == REWRITTEN
    opening = bytearray(family.syn())
    source, size = (12, 4) if family.number == 4 else (8, 16)
    for number in range(500):
        opening[source : source + size] = (0x0B000000 + number).to_bytes(size, "big")
        run(path, bytes(opening), KERNELS, 1.0)
    assert len(path.flows) == 20
    assert keeping.affinity is not None
    assert keeping.affinity.find(packed(family.client), 2.0) is kept


@families
def test_a_collision_breaks_affinity_rather_than_the_flow(family: Family) -> None:
    """A kept backend that cannot hold the flow is passed over while another one can."""
    plain, _ = sharing(family, 1)
    keeping = service(family, vip=family.other_vip, ports=WEB, affinity=Affinity(60, 100))
    path = nat(plain, keeping)
    run(path, family.syn(vip=family.other_vip, client_port=1000))
    run(path, family.syn(client_port=2000))
    assert run(path, family.syn(vip=family.other_vip, client_port=2000))[0] == REWRITTEN
    assert sum(path.counts) == 0
    assert [each.opening for each in keeping.pool.backends] == [1, 1, 0]


# What does not make or keep a flow


def test_refused_packets_refresh_nothing() -> None:
    """A packet that is cut does not keep the flow alive whose addresses it carries."""
    path = nat(web())
    play(path, "c:S b:SA c:A", now=1.0)
    assert run(path, V4.segment("A")[:-1], now=5.0)[0] == DROP
    assert only(path.flows).seen == 1.0


def test_half_open_flows_make_room() -> None:
    """Under a flood of SYNs the table stays at its bound, and the established flow in it."""
    path = nat(web(), bound=5)
    play(path, "c:S b:SA c:A")
    for port in range(1000, 1100):
        assert run(path, V4.syn(client_port=port), now=1.0)[0] == REWRITTEN
        assert len(path.flows) <= 5
    play(path, "c:PA b:PA", now=2.0)
    assert path.flows.evicted == 96

"""One-sided flows by the example of dsr: marks, leases and half flows.

A script such as ``S A FA`` is the client's segments; the backends' answers are never seen.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from icmp_packets import ERRORS, TOO_BIG, error, inner_echo, inner_tcp, inner_udp
from packets import FAMILIES, MANY, V4, V6, Family, guarded, service
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from paraglider.core import flow, verdict
from paraglider.core.affinity import Affinity
from paraglider.core.balancer import Balancer
from paraglider.core.flow import STATE_NAMES, Flow, FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend, Event
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.verdict import MARK, REASON_NAMES
from paraglider.forward.datapath import HEAD
from paraglider.forward.dsr.carrier import LeaseCarrier
from paraglider.forward.one_sided import OneSidedDatapath

MARKS = (0x52000001, 0x52800002, 0x523FFFFF)
LEASE = 0x00400000

families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])


def routed(
    family: Family = V4, protocols: tuple[int, ...] = (flow.TCP, flow.UDP), **changes: object
) -> VirtualService:
    """A service of three backends whose packets stay as they are."""
    return service(family, protocols=protocols, routed=True, **changes)  # type: ignore[arg-type]


def datapath(
    *services: VirtualService, bound: int = 1000, timeouts: FlowTimeouts | None = None
) -> OneSidedDatapath:
    """A packet path over ``services``; backend number n of each has mark number n."""
    marks = {
        backend: mark
        for made in services
        for backend, mark in zip(made.pool.backends, MARKS, strict=False)
    }
    table = FlowTable(timeouts or FlowTimeouts(), bound)
    return OneSidedDatapath(Balancer(ServiceMap(services)), table, LeaseCarrier(marks, LEASE))


def sent(path: OneSidedDatapath, packet: bytes, now: float = 0.0) -> int:
    """The verdict for the head of ``packet``, which must stay as it is."""
    cut = packet[:HEAD]
    buf = guarded(cut)
    found = path.handle(buf, (len(buf) - len(cut)) // 2, len(cut), 0, now)
    assert bytes(buf)[24:-24] == cut
    return found


def once(number: int) -> int:
    """The verdict that marks only this packet for backend ``number``."""
    return MARK | MARKS[number] << 8


def leased(number: int) -> int:
    """The verdict that also gives the flow a lease."""
    return MARK | (MARKS[number] | LEASE) << 8


def only(table: FlowTable) -> Flow:
    """The one flow of the table."""
    flows = [each for protocol in table.forward.values() for each in protocol.values()]
    assert len(flows) == len(table) == 1
    return flows[0]


def counted(path: OneSidedDatapath) -> dict[str, int]:
    """The reasons that were counted."""
    return {name: n for name, n in zip(REASON_NAMES, path.counts, strict=True) if n}


@families
def test_first_packets_get_the_next_backends_mark(family: Family) -> None:
    """A SYN, a datagram, an echo request: each opens a flow, and none has a lease yet."""
    path = datapath(routed(family, echo=True))
    echo = bytes(family.echo(family.client, family.vip, reply=False, identifier=7))
    packets = (family.syn(), family.datagram(), echo)
    assert [sent(path, packet) for packet in packets] == [once(0), once(1), once(2)]
    assert len(path.flows) == 3
    assert counted(path) == {}


TCP = [
    ("a SYN alone is half open", "S", "syn-sent", "once"),
    ("the ACK proves nothing yet", "S A", "unconfirmed", "once"),
    ("a repeated ACK proves nothing", "S A A A A", "unconfirmed", "once"),
    ("nor does one that has grown once", "S A A+", "unconfirmed", "once"),
    ("who hears the backend acknowledges more and more", "S A A+ A+", "established", "lease"),
    ("data that is sent grows as well", "S PA PA+ PA+", "established", "lease"),
    ("what comes at once is no evidence", "S A A+! A+!", "unconfirmed", "once"),
    ("a repeated SYN changes nothing", "S S", "syn-sent", "once"),
    ("a SYN on an established flow changes nothing", "S A A+ A+ S", "established", "once"),
    ("a live client's FIN, and what follows has a lease", "S A A+ A+ FA", "client-done", "lease"),
    ("half-closed it goes on", "S A A+ A+ FA A+ A+ A+", "client-done", "lease"),
    ("the backend's FIN counts as one number", "S A A+ A+ FA A1", "time-wait", "once"),
    ("a short connection never has a lease", "S A FA", "client-done", "once"),
    ("after a RST nothing follows", "S A R", "client-reset", "once"),
    ("a flow that goes on after a RST", "S A A+ A+ R A+", "established", "lease"),
    ("one that was none before is none after", "S A R A+", "unconfirmed", "once"),
    ("a RST from elsewhere is none", "S A Rx", "unconfirmed", "once"),
    ("a FIN from elsewhere is none", "S A FAx", "unconfirmed", "once"),
    ("but after a lease it may be the client's", "S A A+ A+ FAx", "client-done", "lease"),
    ("and a RST counts as a FIN then", "S A A+ A+ Rx", "client-done", "lease"),
    ("a client gives up half-way", "S R", "client-reset", "once"),
    ("a SYN with FIN opens nothing new", "S A FA SF", "client-done", "once"),
    ("a SYN with ACK opens nothing new", "S A FA SA", "client-done", "once"),
    ("no flag at all", "S A A+ A+ ", "established", "once"),
]


def spoken(path: OneSidedDatapath, family: Family, script: str) -> list[int]:
    """The verdicts of the segments of ``script``, a second apart: "+" acknowledges more, "1" one
    number more, "!" comes at the same time, "x" has a sequence number from elsewhere.
    """
    verdicts, now, acknowledged = [], 0.0, 5000
    for step in script.split(" "):
        now += 0 if step.endswith("!") else 1
        acknowledged += 1000 * ("+" in step) + ("1" in step)
        sequence = 0x8000_0000 if "x" in step else 1000
        flags = step.strip("+1!x")
        packet = family.segment(flags, seq=sequence, ack=acknowledged if "A" in flags else 0)
        verdicts.append(sent(path, packet, now))
    return verdicts


@families
@pytest.mark.parametrize(("script", "state", "kind"), [t[1:] for t in TCP], ids=[t[0] for t in TCP])
def test_tcp(family: Family, script: str, state: str, kind: str) -> None:
    """The states by the client's segments, and which segments may be leased."""
    path = datapath(routed(family))
    verdicts = spoken(path, family, script)
    assert STATE_NAMES[only(path.flows).state] == state
    assert verdicts[-1] == (leased(0) if kind == "lease" else once(0))


@families
@pytest.mark.parametrize("script", ["S A A+ A+ FA S", "S A A+ A+ R S", "S A A+ A+ Rx S", "S A R S"])
def test_a_forged_end_and_a_forged_syn_move_no_flow(family: Family, script: str) -> None:
    """Only the backend knows whether its connection is alive: the SYN is forwarded to it."""
    path = datapath(routed(family))
    assert spoken(path, family, script)[-1] == once(0)
    assert only(path.flows).translation.backend.name == family.backends[0]


@families
def test_a_port_that_is_used_again(family: Family) -> None:
    """After both FINs a SYN opens another flow by the strategy; if the end is not certain it opens
    one too, at the same backend.
    """
    path = datapath(routed(family))
    assert spoken(path, family, "S A FA S")[-1] == once(0)
    assert STATE_NAMES[only(path.flows).state] == "syn-sent"
    path = datapath(routed(family))
    assert spoken(path, family, "S A FA A1 S")[-1] == once(1)
    assert STATE_NAMES[only(path.flows).state] == "syn-sent"
    backends = path.balancer.services.services[0].pool.backends
    assert [(b.flows, b.inactive) for b in backends] == [(0, 0), (0, 1), (0, 0)]


def test_an_opening_that_comes_again() -> None:
    """It counts against the backend until the client has answered the backend's answer."""
    path = datapath(routed(V4))
    found = path.balancer.services.services[0].pool.backends[0]
    for flags, unanswered in (("S", 0), ("S", 1), ("S", 2), ("A", 2), ("S", 2)):
        sent(path, V4.segment(flags))
        assert found.unanswered == unanswered


@families
def test_udp(family: Family) -> None:
    """The second datagram makes a flow of it, with a lease."""
    path = datapath(routed(family))
    assert sent(path, family.datagram()) == once(0)
    assert STATE_NAMES[only(path.flows).state] == "udp-new"
    assert sent(path, family.datagram()) == leased(0)
    assert sent(path, family.datagram()) == leased(0)
    assert STATE_NAMES[only(path.flows).state] == "udp"


@families
def test_echo_keeps_its_backend(family: Family) -> None:
    """By its identifier; it never has a lease, and an echo reply belongs to no flow."""
    path = datapath(routed(family, echo=True))
    ask = bytes(family.echo(family.client, family.vip, reply=False, identifier=7))
    assert [sent(path, ask) for _ in range(3)] == [once(0)] * 3
    reply = bytes(family.echo(family.client, family.vip, reply=True, identifier=7))
    assert sent(path, reply) == verdict.PASS
    assert counted(path) == {"no_flow": 1}


@families
def test_mid_stream_without_a_flow(family: Family) -> None:
    """The strategy picks, the flow is half open until more comes, and then has a lease."""
    path = datapath(routed(family, strategy="maglev"))
    before = datapath(routed(family, strategy="maglev"))
    (found,) = set(spoken(before, family, "S A"))
    assert spoken(path, family, "PA PA+") == [found, found]
    assert STATE_NAMES[only(path.flows).state] == "unconfirmed"
    assert spoken(path, family, "A+ A+ A+")[-1] == found | LEASE << 8


@families
def test_a_fin_without_a_flow(family: Family) -> None:
    """It gets a backend by the strategy, and its flow is about to end."""
    path = datapath(routed(family, strategy="maglev"))
    (verdict_,) = spoken(path, family, "FA")
    assert verdict_ in map(once, range(3))
    assert STATE_NAMES[only(path.flows).state] == "client-done"


@families
def test_a_service_that_adopts_nothing(family: Family) -> None:
    """A mid-stream segment without a flow is rejected: the strategy is no hash, or the file says
    so.
    """
    for changes in ({"strategy": "rr"}, {"strategy": "maglev", "adopts": False}):
        path = datapath(routed(family, **changes))
        assert spoken(path, family, "PA FA") == [verdict.PASS] * 2
        assert counted(path) == {"no_flow": 2}
        assert len(path.flows) == 0


@families
@pytest.mark.parametrize("flags", ["R", "RA", "SA", "SF", "F", "", "SR", "P"])
def test_strays(family: Family, flags: str) -> None:
    """Segments that neither open a flow nor belong to one, and need no answer, are dropped."""
    path = datapath(routed(family))
    assert sent(path, family.segment(flags)) == verdict.DROP
    assert counted(path) == {"stray": 1}
    assert len(path.flows) == 0


@families
@pytest.mark.parametrize("kind", ["port unreachable", TOO_BIG])
@pytest.mark.parametrize("kept", [8, None])
def test_errors_reach_the_owner(
    family: Family, kind: str | dict[int, str], kept: int | None
) -> None:
    """An error about an answer goes to the backend that sent it; the flow stays as it is."""
    path = datapath(routed(family, echo=True))
    sent(path, family.syn(80), 1.0)
    sent(path, family.datagram(53), 1.0)
    echo = bytes(family.echo(family.client, family.vip, reply=False, identifier=0x1234))
    sent(path, echo, 1.0)
    kind = kind if isinstance(kind, str) else kind[family.number]
    answers = (
        inner_tcp(family, family.vip, family.client, 80, True),
        inner_udp(family, family.vip, family.client, 53, True),
        inner_echo(family, family.vip, family.client, 0, True),
    )
    for number, answer in enumerate(answers):
        packet = error(family, kind, family.router, family.vip, answer, kept)
        assert sent(path, packet, 50.0) == once(number)
    assert {each.seen for p in path.flows.forward.values() for each in p.values()} == {1.0}
    assert counted(path) == {}


@families
def test_errors_about_flows_that_nobody_knows(family: Family) -> None:
    """Of another balancer, or of a service without flows: the hash finds the backend that the
    flow's own packets go to.
    """
    path = datapath(routed(family, strategy="maglev"))
    kind = next(iter(ERRORS[family.number]))
    answer = inner_tcp(family, family.vip, family.client, 80, True)
    packet = error(family, kind, family.router, family.vip, answer)
    found = sent(path, packet)
    assert len(path.flows) == 0
    assert found == sent(path, family.syn(80)) != verdict.PASS
    empty = routed(family, strategy="maglev")
    for each in empty.pool.backends:
        empty.pool.apply(each, Event.SET_MAINT)
    assert sent(datapath(empty), packet) == verdict.PASS


@families
def test_errors_about_nothing_of_ours(family: Family) -> None:
    """About another flow, about a request, about an error: they pass, and are refused later."""
    path = datapath(routed(family, echo=True))
    kind = next(iter(ERRORS[family.number]))
    answer = inner_tcp(family, family.vip, family.client, 80, True)
    request = inner_echo(family, family.vip, family.client, 0, False)
    about = error(family, kind, family.router, family.vip, answer)
    nested = (IP if family.number == 4 else IPv6)(about)
    for inner in (answer, request, nested):
        packet = error(family, kind, family.router, family.vip, inner)
        assert sent(path, packet) == verdict.PASS
    assert counted(path) == {"no_flow": 3}


@families
def test_what_is_no_services(family: Family) -> None:
    """Another port of the VIP passes unmarked."""
    path = datapath(routed(family, ports=((80, 80),)))
    assert sent(path, family.syn(81)) == verdict.PASS
    assert sent(path, family.datagram(81)) == verdict.PASS
    assert counted(path) == {"no_service": 2}


@families
def test_options_and_extension_headers_take_the_longer_way(family: Family) -> None:
    """They belong to the same flow."""
    path = datapath(routed(family))
    assert sent(path, family.syn()) == once(0)
    packet = family.segment("A")
    if family.number == 4:
        padded = b"\x46" + packet[1:2] + (len(packet) + 4).to_bytes(2, "big") + packet[4:20]
        longer = padded + b"\x01\x01\x01\x00" + packet[20:]
    else:
        head = packet[:4] + (len(packet) - 32).to_bytes(2, "big") + b"\x3c" + packet[7:40]
        longer = head + b"\x06\x00\x01\x04\x00\x00\x00\x00" + packet[40:]
    assert sent(path, longer) == once(0)
    assert len(path.flows) == 1


@families
def test_a_segment_cut_before_its_flags(family: Family) -> None:
    """Its kind is unknown: it is dropped and counted."""
    path = datapath(routed(family))
    cut = (20 if family.number == 4 else 40) + 13
    assert sent(path, family.syn()[:cut]) == verdict.DROP
    assert counted(path) == {"truncated": 1}


def test_no_backend_is_ready() -> None:
    """New flows of either protocol are refused; those that are there go on."""
    made = routed()
    path = datapath(made)
    sent(path, V4.syn())
    for backend in made.pool.backends:
        made.pool.set_weight(backend, 0)
    assert sent(path, V4.syn(client_port=40001)) == verdict.PASS
    assert sent(path, V4.datagram()) == verdict.PASS
    assert counted(path) == {"refused": 2}
    assert sent(path, V4.segment("A")) == once(0)


def test_a_backend_that_is_down_gets_no_syn() -> None:
    """Its flows, where they are kept, stay its own; a new attempt to connect goes elsewhere."""
    made = routed(on_down="keep")
    path = datapath(made)
    sent(path, V4.syn())
    made.pool.apply(made.pool.backends[0], Event.SET_DRAIN)
    assert sent(path, V4.syn()) == once(0)
    made.pool.apply(made.pool.backends[0], Event.CHECK_FAILED)
    assert sent(path, V4.segment("A")) == once(0)
    assert sent(path, V4.syn()) in (once(1), once(2))
    for backend in made.pool.backends[1:]:
        made.pool.apply(backend, Event.CHECK_FAILED)
    assert sent(path, V4.syn()) == verdict.PASS
    assert len(path.flows) == 0


def test_a_full_table() -> None:
    """Half-open flows are evicted, established ones are not."""
    path = datapath(routed(), bound=2)
    for port in (2000, 2001, 2002):
        assert sent(path, V4.syn(client_port=port)) & 0xFF == MARK
    assert path.flows.evicted == 1
    for key in list(path.flows.forward[flow.TCP]):
        port = int.from_bytes(key[8:10], "big")
        for now in range(4):
            sent(path, V4.segment("A", client_port=port, ack=1000 * now), now)
    assert sent(path, V4.syn(client_port=2003)) == verdict.DROP
    assert counted(path) == {"table_full": 1}


def test_two_services_share_a_backend() -> None:
    """Flows of one client's port to two VIPs are separate, and end separately."""
    left = routed(name="left")
    right = service(V4, name="right", vip=V4.other_vip, backends=left.pool.backends, routed=True)
    path = datapath(left, right)
    assert sent(path, V4.syn()) == once(0)
    assert sent(path, V4.syn(vip=V4.other_vip)) == once(0)
    assert len(path.flows) == 2
    path.flows.expire(1000.0)
    assert len(path.flows) == 0
    assert left.pool.backends[0].flows == 0


def test_affinity() -> None:
    """A client keeps its backend over flows and protocols."""
    path = datapath(routed(affinity=Affinity(300, 10)))
    ports = range(2000, 2004)
    assert {sent(path, V4.syn(client_port=port)) for port in ports} == {once(0)}
    assert sent(path, V4.datagram()) == once(0)


def test_weighted_counts_half_flows() -> None:
    """Live flows count, ended ones do not."""
    path = datapath(routed(strategy="weighted"))
    picked = [sent(path, V4.syn(client_port=port)) for port in range(2000, 2006)]
    assert sorted(picked) == sorted([once(0), once(1), once(2)] * 2)
    path.flows.expire(241.0)
    backends = path.balancer.services.services[0].pool.backends
    assert [backend.flows for backend in backends] == [0, 0, 0]


def test_new_flows_are_reported_once() -> None:
    """For the log of ``-D``."""
    path = datapath(routed())
    told: list[Backend] = []
    path.opened = lambda _protocol, _key, backend: told.append(backend)
    for flags in ("S", "S", "A"):
        sent(path, V4.segment(flags))
    assert told == [path.balancer.services.services[0].pool.backends[0]]


@MANY
@given(st.binary(max_size=HEAD), st.sampled_from([b"", b"\x45", b"\x60"]))
def test_no_bytes_raise(packet: bytes, start: bytes) -> None:
    """All packets get a verdict, and nothing outside the head is read."""
    path = datapath(routed(echo=True), routed(V6, echo=True, name="six"))
    assert sent(path, start + packet[len(start) :]) in (verdict.PASS, verdict.DROP)


@MANY
@given(st.data(), st.sampled_from(FAMILIES))
def test_no_damage_raises(data: st.DataObject, family: Family) -> None:
    """A packet for a service with any byte changed, cut anywhere, gets a verdict."""
    path = datapath(routed(family, echo=True))
    kind = data.draw(st.sampled_from(sorted(ERRORS[family.number])))
    answer = inner_tcp(family, family.vip, family.client, 80, True)
    packets = (
        family.syn(80),
        family.segment("A", 80),
        family.datagram(),
        error(family, kind, family.router, family.vip, answer),
    )
    packet = bytearray(data.draw(st.sampled_from(packets)))
    packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(packet)))
    found = sent(path, bytes(packet[:length]))
    assert found in (verdict.PASS, verdict.DROP, *(once(n) for n in range(3)))

"""Refused packets: unchanged, counted by reason, with the stated verdict."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from packets import V4, V6, Family, backend, nat, run, service
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NS,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Packet, Raw

from paraglider.core import flow, verdict
from paraglider.core.pool import Event
from paraglider.core.service import VirtualService
from paraglider.core.verdict import DROP, REASON_NAMES
from paraglider.forward.nat.datapath import NatDatapath


def web(family: Family, vip: str = "") -> VirtualService:
    """A TCP service on port 80 with one backend."""
    backends = [backend(family.backends[0])]
    return service(family, vip=vip, ports=((80, 80),), backends=backends)


def reply(family: Family) -> bytes:
    """A datagram of a backend to the client."""
    header = UDP(sport=53, dport=40000)
    return bytes(family.ip(family.backends[0], family.client) / header / Raw(b"here"))


def down(family: Family, all_down: str = "reject") -> NatDatapath:
    """A service of everything, and each of its backends out of service."""
    made = service(family, protocols=(flow.TCP, flow.UDP), echo=True, all_down=all_down)
    for each in made.pool.backends:
        made.pool.apply(each, Event.SET_MAINT)
    return nat(made)


def down_all_used(family: Family) -> NatDatapath:
    """The same, where all that are down would be used; but the operator has taken them out."""
    return down(family, "use_all")


def lost(family: Family) -> NatDatapath:
    """A flow whose backend went down."""
    path = nat(web(family))
    run(path, family.syn())
    (pool,) = (each.pool for each in path.balancer.services.services)
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    return path


def echo_request(family: Family) -> bytes:
    """A ping to the VIP."""
    return bytes(family.echo(family.client, family.vip, reply=False, identifier=1))


def full(family: Family) -> NatDatapath:
    """A table of one flow, which lasts."""
    path = nat(web(family), bound=1)
    for packet in (family.syn(), family.answer("SA", family.backends[0]), family.segment("A")):
        run(path, packet)
    return path


def taken(family: Family) -> NatDatapath:
    """The only backend has a flow of the client's port already, through the other VIP."""
    path = nat(web(family), web(family, family.other_vip))
    run(path, family.syn(vip=family.other_vip))
    return path


def plain(family: Family) -> NatDatapath:
    """A web service with one backend."""
    return nat(web(family))


def any_service(family: Family) -> NatDatapath:
    """A service of all protocols and ports."""
    return nat(service(family, protocols=(flow.TCP, flow.UDP), echo=True))


def hashed(family: Family) -> VirtualService:
    """A web service that adopts flows, over two backends."""
    backends = [backend(address) for address in family.backends[:2]]
    return service(family, strategy="maglev", ports=((80, 80),), backends=backends)


def refusing(family: Family) -> NatDatapath:
    """A flow adopted to a backend that was down when the flow began, at the other backend."""
    made = hashed(family)
    path = nat(made)
    run(path, family.segment("A"))
    (mine,) = path.flows.forward[flow.TCP].values()
    made.pool.apply(mine.translation.backend, Event.CHECK_FAILED)
    made.pool.apply(mine.translation.backend, Event.CHECK_PASSED)
    return path


def resetting(family: Family) -> bytes:
    """The RST of that backend."""
    (mine,) = refusing(family).flows.forward[flow.TCP].values()
    return family.answer("R", mine.translation.backend.name)


def limited(family: Family) -> NatDatapath:
    """As many flows were adopted in this second as may be."""
    path = nat(hashed(family))
    path.adopter.limit = 1
    run(path, family.segment("A", client_port=50000))
    return path


def ip4(**fields: object) -> Packet:
    """An IPv4 header from the client to the VIP."""
    return V4.ip(V4.client, V4.vip, **fields)


def ip6(**fields: object) -> Packet:
    """An IPv6 header from the client to the VIP."""
    return V6.ip(V6.client, V6.vip, **fields)


def names(family: Family) -> NatDatapath:
    """A service of the DNS with one backend."""
    backends = [backend(family.backends[0])]
    return nat(service(family, protocols=(flow.UDP,), ports=((53, 53),), backends=backends))


def pinged(family: Family) -> NatDatapath:
    """A flow of the client."""
    path = plain(family)
    run(path, family.syn())
    return path


def damaged(family: Family) -> bytes:
    """An error about the backend's answer, with a bit of its checksum turned."""
    kind = ICMP(type=3, code=1) if family.number == 4 else ICMPv6DestUnreach()
    inner = family.ip(family.vip, family.client) / TCP(sport=80, dport=40000)
    packet = bytearray(bytes(family.ip(family.router, family.vip) / kind / Raw(bytes(inner))))
    packet[23 if family.number == 4 else 43] ^= 1
    return bytes(packet)


BACK4, BACK6 = V4.backends[0], V6.backends[0]
SYN = TCP(sport=40000, dport=80, flags="S")
NINE = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
for _ in range(7):
    NINE /= IPv6ExtHdrDestOpt()

Case = tuple[str, str, Callable[[Family], NatDatapath], Family, bytes]
REFUSALS: list[Case] = [
    ("no_service", "a SYN to another port", plain, V4, V4.syn(81)),
    ("no_service", "a SYN to another port", plain, V6, V6.syn(81)),
    ("no_service", "a SYN to another address", plain, V4, V4.syn(vip=V4.client)),
    ("no_service", "a datagram where TCP is served", plain, V4, V4.datagram(80)),
    ("no_service", "a backend's datagram of no flow", plain, V6, reply(V6)),
    (
        "no_service",
        "a ping where no service is for any protocol",
        plain,
        V4,
        bytes(V4.echo(V4.client, V4.vip, reply=False, identifier=1)),
    ),
    ("no_flow", "a segment in mid-stream", plain, V4, V4.segment("PA")),
    ("no_flow", "a segment in mid-stream", plain, V6, V6.segment("A")),
    (
        "no_flow",
        "a backend's segment of no flow, where it may be a client of others",
        any_service,
        V4,
        V4.answer("SA", V4.backends[0]),
    ),
    ("from_forgotten", "a backend's segment of no flow", plain, V4, V4.answer("PA", BACK4)),
    ("from_forgotten", "a backend's segment of no flow", plain, V6, V6.answer("FA", BACK6)),
    ("from_forgotten", "a backend's datagram of no flow", names, V4, reply(V4)),
    ("from_forgotten", "a backend's datagram of no flow", names, V6, reply(V6)),
    (
        "no_service",
        "a backend that asks a server of its own kind",
        names,
        V4,
        bytes(V4.ip(V4.backends[0], V4.client) / UDP(sport=53, dport=53)),
    ),
    ("bad_checksum", "an ICMP error with a wrong checksum", pinged, V4, damaged(V4)),
    ("bad_checksum", "an ICMP error with a wrong checksum", pinged, V6, damaged(V6)),
    (
        "no_flow",
        "an echo reply nobody asked for",
        any_service,
        V6,
        bytes(V6.echo(V6.backends[0], V6.client, reply=True, identifier=9)),
    ),
    (
        "no_flow",
        "an ICMP error about no flow",
        plain,
        V4,
        bytes(V4.ip(V4.router, V4.vip) / ICMP(type=3, code=1) / Raw(V4.answer("A", V4.vip))),
    ),
    ("other_protocol", "SCTP", any_service, V4, bytes(ip4(proto=132) / Raw(bytes(20)))),
    ("other_protocol", "ESP", any_service, V6, bytes(ip6(nh=50) / Raw(bytes(20)))),
    ("other_icmp", "a redirect", any_service, V4, bytes(ip4() / ICMP(type=5))),
    ("other_icmp", "a neighbour solicitation", any_service, V6, bytes(ip6() / ICMPv6ND_NS())),
    (
        "source_routed",
        "a routing header with a segment left",
        plain,
        V6,
        bytes(ip6() / IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=1) / SYN),
    ),
    ("short", "nothing", plain, V4, b""),
    ("short", "a single byte", plain, V4, b"\x45"),
    ("short", "19 bytes", plain, V4, V4.syn()[:19]),
    ("short", "an IPv6 header cut by a byte", plain, V6, V6.syn()[:39]),
    ("bad_version", "version 5", plain, V4, b"\x55" + V4.syn()[1:]),
    ("bad_header_length", "a header of 16 bytes", plain, V4, b"\x44" + V4.syn()[1:]),
    ("bad_header_length", "a header past the packet", plain, V4, b"\x4f" + V4.syn()[1:30]),
    ("bad_total_length", "a length of 19", plain, V4, bytes(ip4(len=19) / SYN)),
    ("bad_total_length", "a jumbogram", plain, V6, bytes(ip6(plen=0) / SYN)),
    ("truncated", "a copy cut by a byte", plain, V4, V4.datagram()[:-1]),
    ("truncated", "a copy cut by a byte", plain, V6, V6.syn()[:-1]),
    ("fragment", "a first fragment", plain, V4, bytes(ip4(flags="MF") / SYN)),
    ("fragment", "a last fragment", plain, V4, bytes(ip4(frag=185) / SYN)),
    ("fragment", "a first fragment", plain, V6, bytes(ip6() / IPv6ExtHdrFragment(m=1) / SYN)),
    ("bad_extension", "nine extension headers", plain, V6, bytes(ip6() / NINE / SYN)),
    (
        "bad_extension",
        "an extension header past the packet",
        plain,
        V6,
        bytes(ip6(nh=60) / Raw(b"\x06\x09" + bytes(30))),
    ),
    ("short_transport", "a TCP header of 19", plain, V4, bytes(ip4(proto=6) / Raw(bytes(19)))),
    ("short_transport", "a UDP header of 7", plain, V6, bytes(ip6(nh=17) / Raw(bytes(7)))),
    ("short_error", "an error about nothing", plain, V4, bytes(ip4() / ICMP(type=3))),
    (
        "short_error",
        "an error about a packet cut to 7 bytes of transport",
        plain,
        V6,
        bytes(ip6() / ICMPv6DestUnreach() / Raw(V6.answer("A", V6.vip)[:47])),
    ),
    ("no_backend", "a SYN while the operator has taken all out", down_all_used, V4, V4.syn()),
    ("no_backend", "a SYN while the operator has taken all out", down_all_used, V6, V6.syn()),
    ("no_backend", "a ping while no backend is ready", down, V4, echo_request(V4)),
    ("no_backend", "a ping while no backend is ready", down, V6, echo_request(V6)),
    ("refused", "a SYN while no backend is ready", down, V4, V4.syn()),
    ("refused", "a datagram while no backend is ready", down, V6, V6.datagram()),
    ("flow_lost", "a client's segment when the backend is down", lost, V4, V4.segment("PA")),
    ("flow_lost", "a client's FIN when the backend is down", lost, V6, V6.segment("FA")),
    ("from_lost", "a backend's segment when it is down", lost, V4, V4.answer("SA", BACK4)),
    ("from_lost", "a backend's segment when it is down", lost, V6, V6.answer("SA", BACK6)),
    ("table_full", "a SYN when all flows last", full, V4, V4.syn(client_port=40001)),
    ("other_backend", "the RST of an adopted flow's backend", refusing, V4, resetting(V4)),
    ("other_backend", "the RST of an adopted flow's backend", refusing, V6, resetting(V6)),
    ("adoption_limit", "a segment of one flow more", limited, V4, V4.segment("A")),
    ("adoption_limit", "a segment of one flow more", limited, V6, V6.segment("A")),
    ("adoption_limit", "an answer of one flow more", limited, V4, V4.answer("A", V4.backends[0])),
    ("collision", "a SYN whose keys are in use", taken, V4, V4.syn()),
    ("collision", "a SYN whose keys are in use", taken, V6, V6.syn()),
]


@pytest.mark.parametrize(
    ("reason", "path", "family", "packet"),
    [(case[0], case[2], case[3], case[4]) for case in REFUSALS],
    ids=[f"{case[0]}: {case[1]}, IPv{case[3].number}" for case in REFUSALS],
)
def test_what_is_refused(
    reason: str, path: Callable[[Family], NatDatapath], family: Family, packet: bytes
) -> None:
    """The packet is unchanged, passes or drops as in the table, and one counter is incremented."""
    refusing = path(family)
    flows = len(refusing.flows)
    expected = verdict.REASONS[REASON_NAMES.index(reason)][1]
    assert run(refusing, packet) == (expected, packet)
    counted = {n: c for n, c in zip(REASON_NAMES, refusing.counts, strict=True) if c}
    assert counted == {reason: 1}
    assert len(refusing.flows) == flows - (reason in ("flow_lost", "other_backend"))


def test_every_reason_is_reached() -> None:
    """The table above has every reason except "internal", a fault that the worker catches, and
    those that only dsr and tunnel have.
    """
    others = {"internal", "stray", "unsent", "too_big", "hop_limit"}
    assert {case[0] for case in REFUSALS} == set(REASON_NAMES) - others
    assert verdict.VERDICT_OF[verdict.INTERNAL] == DROP

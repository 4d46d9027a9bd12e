"""The same packets through the packet path of ``nat`` and through kernel DNAT give the same bytes.

Permitted differences are in ``DIFFERENCES``, with the reason and a test; any other is a fault. The
kernel is in namespaces of the test (``dnat``); packets are conversations drawn by hypothesis, a
fixed number, each with its own port.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from dnat import MAPPED, WORLDS, KernelDnat, World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.packet import Packet, Raw

from paraglider.core import strategies
from paraglider.core.balancer import Balancer
from paraglider.core.checksum import COMPLETE
from paraglider.core.flow import TCP as TCP_NUMBER
from paraglider.core.flow import UDP as UDP_NUMBER
from paraglider.core.flow import FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend, Pool
from paraglider.core.service import ALL_PORTS, ServiceMap, VirtualService
from paraglider.core.verdict import DROP, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

pytestmark = pytest.mark.root

#: what the kernel does otherwise, and why that is right for us
DIFFERENCES: Final = {
    "ttl": "the kernel's routing counts it down after either translation; the core does not route",
    "fragments": "conntrack reassembles and fragments again by the size that it saw; the core gets"
    " whole datagrams from the kernel's own defragmentation, and routing fragments them again",
    "bad checksum": "conntrack calls the packet invalid and leaves it untranslated; the core"
    " translates it, the checksum is as wrong as before, and the receiver drops it",
    "out of window": "conntrack follows sequence numbers and leaves such a segment untranslated;"
    " the core follows states alone, and the ends judge the window",
    "no flow": "conntrack may take up a TCP flow in the middle, and translates its first segment;"
    " no flow is opened, and the local stack answers RST",
}

PORTS = itertools.count(20000)
ROUNDS = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
families = pytest.mark.parametrize("world", WORLDS.values(), ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelDnat]:
    """One router for all tests of this file; every flow has its own ports."""
    with KernelDnat() as made:
        yield made


def service(
    world: World, protocols: tuple[int, ...], port: int = 0, mapped: int = 0
) -> VirtualService:
    """A service over the one backend."""
    address, vip = (ipaddress.ip_address(a).packed for a in (world.backend, world.vip))
    pool = Pool([Backend(world.backend, address, mapped, 1)])
    ports = ((port, port),) if port else ALL_PORTS
    strategy = strategies.create("rr")
    return VirtualService(str(port), vip, protocols, ports, pool, strategy, echo=not port)


def nat(world: World) -> NatDatapath:
    """The packet path with the services that the kernel's rules are."""
    numbers = {"tcp": TCP_NUMBER, "udp": UDP_NUMBER}
    services = [service(world, (numbers[p],), port, at) for (p, port), at in MAPPED.items()]
    services.append(service(world, (TCP_NUMBER, UDP_NUMBER)))
    return NatDatapath(Balancer(ServiceMap(services)), FlowTable(FlowTimeouts(), 1000))


@dataclass
class Pair:
    """The core and the kernel, given the same."""

    world: World
    kernel: KernelDnat
    path: NatDatapath

    def core(self, packet: bytes) -> bytes | None:
        """The core's output for ``packet``, routed; None if it is dropped."""
        buf = bytearray(packet)
        verdict = self.path.handle(buf, 0, len(buf), COMPLETE, 0.0)
        if verdict == DROP:
            return None
        assert verdict == REWRITTEN, "not translated"
        return routed(bytes(buf))

    def same(self, packet: Packet | bytes, side: str) -> bytes:
        """Both outputs must be equal; returns the output."""
        text = bytes(packet)
        expected = self.core(text)
        assert self.kernel.forward([text], side) == ([] if expected is None else [expected])
        assert expected is not None
        return expected


def routed(packet: bytes) -> bytes:
    """``packet`` with a hop less (``DIFFERENCES``: ttl)."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([packet[7] - 1]) + packet[8:]
    layer = IP(packet)
    layer.ttl -= 1
    before = layer.chksum
    del layer.chksum
    after = IP(bytes(layer)).chksum
    assert before is not None
    layer.chksum = after
    return bytes(layer)


def header(world: World, source: str, destination: str, **fields: Any) -> Packet:
    """An IP header."""
    return (IP if world.family == 4 else IPv6)(src=source, dst=destination, **fields)


@st.composite
def headers(draw: st.DrawFn, family: int) -> dict[str, Any]:
    """Fields of an IP header that a path may carry."""
    hops = draw(st.integers(2, 255))
    if family == 6:
        return {"hlim": hops, "tc": draw(st.integers(0, 255)), "fl": draw(st.integers(0, 0xFFFFF))}
    return {
        "ttl": hops,
        "tos": draw(st.integers(0, 255)),
        "id": draw(st.integers(0, 65535)),
        "flags": draw(st.sampled_from(["", "DF"])),
        "options": draw(st.sampled_from([[], [IPOption_NOP()] * 4])),
    }


@st.composite
def extensions(draw: st.DrawFn, family: int) -> list[Packet]:
    """Extension headers of IPv6 between its header and the transport's."""
    if family == 4 or draw(st.integers(0, 3)):
        return []
    padding = [PadN(optdata=b"\0" * 4)]
    choice = [IPv6ExtHdrHopByHop(options=padding), IPv6ExtHdrDestOpt(options=padding)]
    return draw(st.sampled_from([choice[:1], choice[1:], choice]))


def stacked(head: Packet, between: list[Packet], *rest: Packet) -> Packet:
    """The layers, one upon the other."""
    for layer in (*between, *rest):
        head = head / layer.copy()
    return head


OPTIONS = st.sampled_from(
    [
        [],
        [("MSS", 1460)],
        [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 7)],
        [("NOP", None), ("NOP", None), ("Timestamp", (9, 8))],
    ]
)
DATA = st.one_of(st.just(b""), st.binary(max_size=40), st.just(bytes(range(256)) * 4))
STEPS = st.lists(st.tuples(st.sampled_from(["client", "backend"]), DATA, OPTIONS), max_size=5)


@families
@ROUNDS
@given(data=st.data(), port=st.sampled_from([80, 81]), steps=STEPS, close=st.booleans())
def test_tcp(
    kernel: KernelDnat,
    world: World,
    data: st.DataObject,
    port: int,
    steps: list[tuple[str, bytes, list[Any]]],
    close: bool,
) -> None:
    """A connection with its handshake, data both ways, options, and its end by FIN or RST."""
    pair = Pair(world, kernel, nat(world))
    own, at = next(PORTS), MAPPED.get(("tcp", port), port)
    sent = {
        "client": data.draw(st.integers(0, 2**32 - 1)),
        "backend": data.draw(st.integers(0, 2**32 - 1)),
    }

    def segment(side: str, flags: str, content: bytes = b"", options: Any = ()) -> None:
        other = "backend" if side == "client" else "client"
        fields = data.draw(headers(world.family))
        between = data.draw(extensions(world.family))
        if side == "client":
            head, sport, dport = header(world, world.client, world.vip, **fields), own, port
        else:
            head, sport, dport = header(world, world.backend, world.client, **fields), at, own
        acknowledged = sent[other] if "A" in flags else 0
        tcp = TCP(sport=sport, dport=dport, flags=flags, seq=sent[side], ack=acknowledged)
        tcp.window, tcp.options = 29200, list(options)
        on = pair.same(stacked(head, between, tcp, Raw(content)), side)
        assert (world.vip if side == "backend" else world.backend) in addresses(on)
        grows = len(content) + ("S" in flags) + ("F" in flags)
        sent[side] = (sent[side] + grows) % 2**32

    segment("client", "S", options=[("MSS", 1460)])
    segment("backend", "SA", options=[("MSS", 1460)])
    segment("client", "A")
    for side, content, options in steps:
        segment(side, "PA", content, options)
    if close:
        for side, flags in [("client", "FA"), ("backend", "FA"), ("client", "A")]:
            segment(side, flags)
    else:
        segment("backend", "RA")


def addresses(packet: bytes) -> set[str]:
    """Both addresses of ``packet``."""
    layer = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    return {layer.src, layer.dst}


@families
@ROUNDS
@given(
    data=st.data(),
    port=st.sampled_from([53, 54]),
    steps=st.lists(st.tuples(st.booleans(), DATA, st.booleans()), min_size=1, max_size=5),
)
def test_udp(
    kernel: KernelDnat,
    world: World,
    data: st.DataObject,
    port: int,
    steps: list[tuple[bool, bytes, bool]],
) -> None:
    """Datagrams both ways, empty ones too, and over IPv4 those without a checksum."""
    pair = Pair(world, kernel, nat(world))
    own, at = next(PORTS), MAPPED.get(("udp", port), port)
    for answered, content, unsummed in [(False, b"?", False), *steps]:
        fields, between = data.draw(headers(world.family)), data.draw(extensions(world.family))
        if answered:
            head, ports = header(world, world.backend, world.client, **fields), (at, own)
        else:
            head, ports = header(world, world.client, world.vip, **fields), (own, port)
        udp = UDP(sport=ports[0], dport=ports[1])
        if unsummed and world.family == 4:
            udp.chksum = 0
        pair.same(stacked(head, between, udp, Raw(content)), "backend" if answered else "client")


@families
@ROUNDS
@given(data=st.data(), content=DATA, number=st.integers(0, 65535))
def test_echo(
    kernel: KernelDnat, world: World, data: st.DataObject, content: bytes, number: int
) -> None:
    """A request and its reply, with any sequence number and data."""
    pair = Pair(world, kernel, nat(world))
    identifier = next(PORTS)
    for reply in (False, True):
        ends = (world.backend, world.client) if reply else (world.client, world.vip)
        head = header(world, *ends, **data.draw(headers(world.family)))
        if world.family == 4:
            echo: Packet = ICMP(type=0 if reply else 8, id=identifier, seq=number)
        else:
            echo = (ICMPv6EchoReply if reply else ICMPv6EchoRequest)(id=identifier, seq=number)
        pair.same(head / echo / Raw(content), "backend" if reply else "client")


ERRORS = {
    4: [
        ICMP(type=3, code=1),
        ICMP(type=3, code=3),
        ICMP(type=3, code=4, nexthopmtu=1400),
        ICMP(type=11, code=0),
        ICMP(type=12, code=0, ptr=20),
    ],
    6: [ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1400), ICMPv6TimeExceeded(code=0)],
}


@families
@ROUNDS
@given(
    data=st.data(),
    kind=st.sampled_from(["tcp", "udp", "echo"]),
    port=st.sampled_from([0, 1]),
    from_router=st.booleans(),
)
def test_errors(
    kernel: KernelDnat,
    world: World,
    data: st.DataObject,
    kind: str,
    port: int,
    from_router: bool,
) -> None:
    """Errors of the backend or a router about the client's packet, and of the client about the
    backend's: both are translated for the other side, with the inner packet.
    """
    pair = Pair(world, kernel, nat(world))
    own = next(PORTS)

    def packet(side: str) -> Packet:
        ends = (world.client, world.vip) if side == "client" else (world.backend, world.client)
        return header(world, *ends) / transport(world, kind, port, own, side) / Raw(b"data " * 8)

    there = pair.same(packet("client"), "client")
    back = pair.same(packet("backend"), "backend")
    error = data.draw(st.sampled_from(ERRORS[world.family]))
    inside = data.draw(st.sampled_from([28 if world.family == 4 else 48, 500]))
    teller = world.router if from_router else world.backend
    about_request = header(world, teller, world.client) / error.copy() / Raw(there[:inside])
    pair.same(about_request, "backend")
    about_reply = header(world, world.client, world.vip) / error.copy() / Raw(back[:inside])
    pair.same(about_reply, "client")


def transport(world: World, kind: str, mapped: int, own: int, side: str) -> Packet:
    """The header of a flow's first packet or of its answer."""
    if kind == "echo":
        if world.family == 4:
            return ICMP(type=8 if side == "client" else 0, id=own)
        return (ICMPv6EchoRequest if side == "client" else ICMPv6EchoReply)(id=own)
    port = {"tcp": (81, 80), "udp": (54, 53)}[kind][mapped]
    ports = (own, port) if side == "client" else (MAPPED.get((kind, port), port), own)
    if kind == "udp":
        return UDP(sport=ports[0], dport=ports[1])
    flags, sequence = ("S", 100) if side == "client" else ("SA", 500)
    acknowledged = 0 if side == "client" else 101
    return TCP(sport=ports[0], dport=ports[1], flags=flags, seq=sequence, ack=acknowledged)


@families
@pytest.mark.parametrize("size", [1600, 4000])
def test_fragments(kernel: KernelDnat, world: World, size: int) -> None:
    """The kernel's reassembled fragments equal the core's output for the whole packet."""
    pair = Pair(world, kernel, nat(world))
    own = next(PORTS)
    udp = UDP(sport=own, dport=53) / Raw(bytes(i % 251 for i in range(size)))
    whole = (
        header(world, world.client, world.vip, **({"id": 77} if world.family == 4 else {})) / udp
    )
    text = bytes(whole)
    cut = 20 if world.family == 4 else 40
    body, pieces = text[cut:], []
    for start in range(0, len(body), 1200):
        piece, more = body[start : start + 1200], int(start + 1200 < len(body))
        if world.family == 4:
            head = IP(src=world.client, dst=world.vip, id=77, proto=17, frag=start // 8)
            head.flags = "MF" if more else ""
        else:
            fragment = IPv6ExtHdrFragment(offset=start // 8, m=more, id=77, nh=17)
            head = IPv6(src=world.client, dst=world.vip) / fragment
        pieces.append(bytes(head / Raw(piece)))
    expected = pair.core(text)
    assert expected is not None
    found = kernel.forward(pieces, "client")
    assert len(found) == len(pieces)
    assert joined(found) == expected[cut:]
    assert {frozenset(addresses(piece)) for piece in found} == {frozenset(addresses(expected))}


def joined(pieces: list[bytes]) -> bytes:
    """The reassembled content of the fragments."""
    parts = {}
    for piece in pieces:
        if piece[0] >> 4 == 4:
            parts[IP(piece).frag] = piece[20:]
        else:
            parts[IPv6(piece)[IPv6ExtHdrFragment].offset] = piece[48:]
    return b"".join(parts[offset] for offset in sorted(parts))


@families
def test_bad_checksum(kernel: KernelDnat, world: World) -> None:
    """The kernel does not translate it; we do, and the checksum stays wrong."""
    pair = Pair(world, kernel, nat(world))
    own = next(PORTS)
    udp = UDP(sport=own, dport=53, chksum=0x1234)
    packet = bytes(header(world, world.client, world.vip) / udp / Raw(b"x"))
    assert kernel.forward([packet], "client") == []  # for the VIP, which has no host
    expected = pair.core(packet)
    assert expected is not None
    layer = IP(expected) if world.family == 4 else IPv6(expected)
    right = layer.copy()
    del right[UDP].chksum
    again = type(layer)(bytes(right))
    assert again[UDP].chksum != layer[UDP].chksum


@families
@pytest.mark.parametrize("way", ["out of window", "no flow"])
def test_what_conntrack_checks_by_sequence_numbers(
    kernel: KernelDnat, world: World, way: str
) -> None:
    """The core does not check them: a segment of a live flow passes, one of an unknown flow does
    not.
    """
    pair = Pair(world, kernel, nat(world))
    own = next(PORTS)
    tcp = {"sport": own, "dport": 80}
    if way == "no flow":
        packet = bytes(header(world, world.client, world.vip) / TCP(**tcp, flags="A", seq=5, ack=7))
        buf = bytearray(packet)
        assert pair.path.handle(buf, 0, len(buf), COMPLETE, 0.0) != REWRITTEN
        assert bytes(buf) == packet
        (found,) = kernel.forward([packet], "client")
        assert world.backend in addresses(found)
        return
    pair.same(header(world, world.client, world.vip) / TCP(**tcp, flags="S", seq=100), "client")
    back = header(world, world.backend, world.client)
    answer = TCP(sport=8080, dport=own, flags="SA", seq=500, ack=101, window=100)
    pair.same(back / answer, "backend")
    ack = TCP(**tcp, flags="A", seq=101, ack=501)
    pair.same(header(world, world.client, world.vip) / ack, "client")
    far = TCP(**tcp, flags="PA", seq=2**31, ack=501)
    packet = bytes(header(world, world.client, world.vip) / far / Raw(b"far away"))
    assert kernel.forward([packet], "client") == []
    expected = pair.core(packet)
    assert expected is not None
    assert world.backend in addresses(expected)


def test_every_difference_has_its_test() -> None:
    """The list has exactly the differences that the tests show."""
    shown = {"ttl", "fragments", "bad checksum", "out of window", "no flow"}
    assert set(DIFFERENCES) == shown

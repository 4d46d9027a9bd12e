"""Header walks: where the transport header is found, and why a packet is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import FRINGE, MANY, V4, V6, Family, guarded, packed
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Packet, Raw

from paraglider.core import flow, verdict
from paraglider.core.packet import (
    ECHO_REPLY,
    ECHO_REQUEST,
    FLOW,
    ICMP_ERROR,
    MAX_EXTENSIONS,
    Parsed,
    parse,
    reverse,
)

TCP_HEADER = TCP(sport=40000, dport=80, flags="PA")
PORTS = (40000).to_bytes(2, "big") + (80).to_bytes(2, "big")


def walk(packet: Packet | bytes, whole: bool = True) -> Parsed:
    """The result of ``parse`` for ``packet`` in the middle of a buffer."""
    wire = bytes(packet)
    return parse(guarded(wire), FRINGE, len(wire), whole)


def four(**fields: object) -> Packet:
    """An IPv4 header from the client to the VIP."""
    return V4.ip(V4.client, V4.vip, **fields)


def six(**fields: object) -> Packet:
    """An IPv6 header from the client to the VIP."""
    return V6.ip(V6.client, V6.vip, **fields)


def key(family: Family, ports: bytes = PORTS) -> bytes:
    """The flow key of the client's packets to the VIP."""
    return packed(family.client) + packed(family.vip) + ports


@pytest.mark.parametrize(
    ("family", "headers"),
    [
        (V4, four()),
        (V4, four(options=[IPOption_NOP()] * 4)),
        (V4, four(options=[IPOption_RR(length=39, routers=["0.0.0.0"] * 9), IPOption_NOP()])),
        (V4, four(flags="DF")),
        (V4, four(flags="evil")),
        (V6, six()),
        (V6, six() / IPv6ExtHdrHopByHop()),
        (V6, six() / IPv6ExtHdrDestOpt()),
        (V6, six() / IPv6ExtHdrRouting(addresses=["2001:db8::1", "2001:db8::2"], segleft=0)),
        (V6, six() / IPv6ExtHdrFragment(id=7)),
        (V6, six() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(id=7)),
    ],
    ids=lambda value: "" if isinstance(value, Family) else value.summary(),
)
def test_the_transport_header_is_found(family: Family, headers: Packet) -> None:
    """Behind options and extension headers of every kind, the ports complete the flow key."""
    parsed = walk(headers / TCP_HEADER)
    assert (parsed.reason, parsed.kind, parsed.protocol) == (-1, FLOW, flow.TCP)
    assert parsed.transport == FRINGE + len(headers)
    assert parsed.end == FRINGE + len(headers) + 20
    assert parsed.key == key(family)


@pytest.mark.parametrize(
    ("count", "reason"),
    [(MAX_EXTENSIONS, -1), (MAX_EXTENSIONS + 1, verdict.BAD_EXTENSION)],
    ids=["most", "too many"],
)
def test_the_walk_is_bounded(count: int, reason: int) -> None:
    """Exactly as many extension headers as the bound are parsed."""
    headers = six()
    for _ in range(count):
        headers /= IPv6ExtHdrDestOpt()
    assert walk(headers / TCP_HEADER).reason == reason


@pytest.mark.parametrize(
    ("family", "reply", "kind"),
    [(f, reply, kind) for f in (V4, V6) for reply, kind in ((0, ECHO_REQUEST), (1, ECHO_REPLY))],
)
def test_echo_has_its_identifier_for_ports(family: Family, reply: int, kind: int) -> None:
    """The key of an echo has the identifier twice, so that its reverse is that of the reply."""
    echo = family.echo(family.client, family.vip, reply=bool(reply), identifier=0x1234)
    parsed = walk(echo)
    assert (parsed.reason, parsed.kind, parsed.protocol) == (-1, kind, family.icmp)
    assert parsed.key == key(family, b"\x12\x34\x12\x34")


@pytest.mark.parametrize(
    "error",
    [
        *(four() / ICMP(type=kind) for kind in (3, 11, 12)),
        six() / ICMPv6DestUnreach(),
        six() / ICMPv6PacketTooBig(),
        six() / ICMPv6TimeExceeded(),
        six() / ICMPv6ParamProblem(),
    ],
    ids=lambda packet: packet.lastlayer().summary(),
)
def test_icmp_errors_have_no_key_of_their_own(error: Packet) -> None:
    """The key of an ICMP error's flow is in its inner packet."""
    parsed = walk(error / Raw(bytes(28)))
    assert (parsed.reason, parsed.kind, parsed.key) == (-1, ICMP_ERROR, b"")
    assert parsed.end - parsed.transport == 8 + 28


def cut(packet: Packet, size: int) -> bytes:
    """The first ``size`` bytes of ``packet``."""
    return bytes(packet)[:size]


def patched(packet: Packet, at: int, value: int) -> bytes:
    """``packet`` with one byte changed."""
    wire = bytearray(bytes(packet))
    wire[at] = value
    return bytes(wire)


REFUSED = [
    ("nothing at all", b"", verdict.SHORT),
    ("19 bytes", cut(four() / TCP_HEADER, 19), verdict.SHORT),
    ("an IPv6 header cut by a byte", cut(six() / TCP_HEADER, 39), verdict.SHORT),
    ("IP version 0", patched(four() / TCP_HEADER, 0, 0x05), verdict.BAD_VERSION),
    ("IP version 5", patched(four() / TCP_HEADER, 0, 0x55), verdict.BAD_VERSION),
    ("IPv4 header of 16 bytes", patched(four() / TCP_HEADER, 0, 0x44), verdict.BAD_HEADER_LENGTH),
    (
        "IPv4 header of 60 bytes in a packet of 40",
        patched(four() / TCP_HEADER, 0, 0x4F),
        verdict.BAD_HEADER_LENGTH,
    ),
    ("IPv4 length under the header", bytes(four(len=19) / TCP_HEADER), verdict.BAD_TOTAL_LENGTH),
    ("IPv6 payload of nothing", bytes(six()), verdict.BAD_TOTAL_LENGTH),
    ("IPv6 jumbogram", bytes(six(plen=0) / TCP_HEADER), verdict.BAD_TOTAL_LENGTH),
    ("IPv4 copy cut by a byte", cut(four() / TCP_HEADER, 39), verdict.TRUNCATED),
    ("IPv6 copy cut by a byte", cut(six() / TCP_HEADER, 59), verdict.TRUNCATED),
    ("first fragment", bytes(four(flags="MF") / TCP_HEADER), verdict.FRAGMENT),
    ("middle fragment", bytes(four(flags="MF", frag=3) / TCP_HEADER), verdict.FRAGMENT),
    ("last fragment", bytes(four(frag=0x100) / TCP_HEADER), verdict.FRAGMENT),
    ("last fragment, far on", bytes(four(frag=0x1F00) / TCP_HEADER), verdict.FRAGMENT),
    ("first IPv6 fragment", bytes(six() / IPv6ExtHdrFragment(m=1) / TCP_HEADER), verdict.FRAGMENT),
    (
        "last IPv6 fragment",
        bytes(six() / IPv6ExtHdrFragment(offset=1) / TCP_HEADER),
        verdict.FRAGMENT,
    ),
    (
        "last IPv6 fragment, far on",
        bytes(six() / IPv6ExtHdrFragment(offset=0x1F00) / TCP_HEADER),
        verdict.FRAGMENT,
    ),
    (
        "extension header past the packet",
        bytes(six(nh=0) / Raw(b"\x06\x09" + bytes(14))),
        verdict.BAD_EXTENSION,
    ),
    ("extension header of 4 bytes", bytes(six(nh=60) / Raw(b"\x06\0\0\0")), verdict.BAD_EXTENSION),
    ("fragment header of 4 bytes", bytes(six(nh=44) / Raw(bytes(4))), verdict.BAD_EXTENSION),
    (
        "authenticated, so not to be rewritten",
        bytes(six(nh=51) / Raw(bytes(24))),
        verdict.OTHER_PROTOCOL,
    ),
    (
        "routing header with a segment left",
        bytes(six() / IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=1) / TCP_HEADER),
        verdict.SOURCE_ROUTED,
    ),
    ("TCP header of 19 bytes", bytes(four(proto=6) / Raw(bytes(19))), verdict.SHORT_TRANSPORT),
    ("UDP header of 7 bytes", bytes(six(nh=17) / Raw(bytes(7))), verdict.SHORT_TRANSPORT),
    ("ICMP header of 7 bytes", bytes(four(proto=1) / Raw(bytes(7))), verdict.SHORT_TRANSPORT),
    (
        "TCP header past the IP length, not past the buffer",
        bytes(four(len=39) / TCP_HEADER),
        verdict.SHORT_TRANSPORT,
    ),
    ("SCTP", bytes(four(proto=132) / Raw(bytes(20))), verdict.OTHER_PROTOCOL),
    ("no next header", bytes(six(nh=59) / Raw(bytes(20))), verdict.OTHER_PROTOCOL),
    ("ICMPv6 in IPv4", bytes(four(proto=58) / Raw(b"\x80" + bytes(19))), verdict.OTHER_PROTOCOL),
    ("ICMPv4 in IPv6", bytes(six(nh=1) / Raw(b"\x08" + bytes(19))), verdict.OTHER_PROTOCOL),
    ("ICMP redirect", bytes(four() / ICMP(type=5)), verdict.OTHER_ICMP),
    ("neighbour solicitation", bytes(six() / ICMPv6ND_NS()), verdict.OTHER_ICMP),
]


@pytest.mark.parametrize(
    ("packet", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_wrong_is_named(packet: bytes, reason: int) -> None:
    """A packet that cannot be understood, or is none that we forward, has its reason."""
    assert verdict.REASON_NAMES[walk(packet).reason] == verdict.REASON_NAMES[reason]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (cut(four() / TCP_HEADER, 28), -1),
        (cut(six() / TCP_HEADER, 48), -1),
        (cut(four() / TCP_HEADER, 27), verdict.SHORT_TRANSPORT),
        (cut(six() / TCP_HEADER, 47), verdict.SHORT_TRANSPORT),
        (bytes(four(flags="MF") / TCP_HEADER), -1),
        (bytes(six() / IPv6ExtHdrFragment(m=1) / TCP_HEADER), -1),
        (bytes(four(frag=1) / TCP_HEADER), verdict.FRAGMENT),
        (bytes(six() / IPv6ExtHdrFragment(offset=1) / TCP_HEADER), verdict.FRAGMENT),
        (bytes(four(frag=0x100) / TCP_HEADER), verdict.FRAGMENT),
    ],
)
def test_a_head_is_enough_inside_an_error(packet: bytes, reason: int) -> None:
    """For a truncated packet, 8 bytes of transport and a first fragment are enough."""
    assert walk(packet, whole=False).reason == reason


@pytest.mark.parametrize("family", [V4, V6])
def test_bytes_behind_the_packet_are_no_part_of_it(family: Family) -> None:
    """The IP length defines the end of the packet, as in a padded frame."""
    parsed = walk(family.datagram() + bytes(18))
    assert parsed.reason == -1
    assert parsed.end == FRINGE + len(family.datagram())


@MANY
@given(st.binary(max_size=120), st.booleans())
def test_no_bytes_raise(packet: bytes, whole: bool) -> None:
    """All bytes give a result, and nothing outside the packet is read."""
    check_outcome(packet, walk(packet, whole))


@MANY
@given(st.sampled_from([row[1] for row in REFUSED]), st.booleans(), st.data())
def test_no_damage_raises(packet: bytes, whole: bool, data: st.DataObject) -> None:
    """The same for packets with a byte changed here and there, which get further in."""
    wire = bytearray(packet)
    for _ in range(data.draw(st.integers(0, 3)) if wire else 0):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    check_outcome(bytes(wire), walk(bytes(wire), whole))


def check_outcome(packet: bytes, parsed: Parsed) -> None:
    """A reason, or a transport header that lies within the packet."""
    if parsed.reason >= 0:
        assert parsed.reason < len(verdict.REASONS)
        return
    assert parsed.transport >= FRINGE + 20
    assert parsed.transport + 8 <= min(parsed.end, FRINGE + len(packet))
    size = 12 if packet[0] >> 4 == 4 else 36
    assert len(parsed.key) == (0 if parsed.kind == ICMP_ERROR else size)


@MANY
@given(st.sampled_from([4, 16]), st.data())
def test_reverse_swaps_both_ends(size: int, data: st.DataObject) -> None:
    """Source and destination change places, addresses and ports."""
    source, destination = (data.draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    ports = data.draw(st.binary(min_size=4, max_size=4))
    turned = reverse(source + destination + ports)
    assert turned == destination + source + ports[2:] + ports[:2]
    assert reverse(turned) == source + destination + ports


def test_reverse_is_the_key_of_the_answer() -> None:
    """The reverse of a request's key is the key of its answer."""
    request = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=2)
    answer = IP(src="192.0.2.2", dst="192.0.2.1") / UDP(sport=2, dport=1)
    assert reverse(walk(request).key) == walk(answer).key

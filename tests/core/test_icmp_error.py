"""ICMP errors, translated both ways, with a packet inside that is cut, whole, or not ours.

Here too scapy builds each expected packet from scratch: outer and inner addresses, the inner
port, the inner header and transport checksums, and the checksum of the error itself.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from icmp_packets import (
    CLIENT_PORT,
    ERRORS,
    INNERS,
    TOO_BIG,
    Inner,
    inner_tcp,
    inner_udp,
    towards_backend,
    towards_client,
    world,
)
from packets import FAMILIES, FRINGE, SOME, V4, V6, Family, Guarded, guarded, nat, run, service
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

from paraglider.core import flow
from paraglider.core.verdict import BAD_CHECKSUM, DROP, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

inners = pytest.mark.parametrize(
    ("inner", "ports"), [row[1:] for row in INNERS], ids=[row[0] for row in INNERS]
)
families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
every_error = pytest.mark.parametrize(
    ("family", "kind"),
    [(f, kind) for f in FAMILIES for kind in ERRORS[f.number]],
    ids=[f"IPv{f.number} {kind}" for f in FAMILIES for kind in ERRORS[f.number]],
)

CUTS: list[tuple[str, int | None]] = [
    ("8 bytes of transport", 8),
    ("up to TCP's checksum", 16),
    ("up to behind TCP's checksum", 18),
    ("the transport header", 20),
    ("all of it", None),
]
cuts = pytest.mark.parametrize("kept", [row[1] for row in CUTS], ids=[row[0] for row in CUTS])


def snapshot(path: NatDatapath) -> list[tuple[bytes, int, float]]:
    """Key, state and time of every flow."""
    return [
        (each.forward_key, each.state, each.seen)
        for table in path.flows.forward.values()
        for each in table.values()
    ]


@inners
@cuts
@every_error
@pytest.mark.parametrize("sender", ["router", "client"])
def test_towards_the_backend(
    family: Family,
    kind: str,
    sender: str,
    inner: Inner,
    ports: tuple[int, int] | None,
    kept: int | None,
) -> None:
    """An error to the VIP about a reply reaches the backend that sent it, as if sent to it."""
    source = family.client if sender == "client" else family.router
    before, after = towards_backend(family, kind, source, inner, ports, kept)
    assert run(world(family), before) == (REWRITTEN, after)


@inners
@cuts
@every_error
@pytest.mark.parametrize("sender", ["backend", "router", "balancer"])
def test_towards_the_client(
    family: Family,
    kind: str,
    sender: str,
    inner: Inner,
    ports: tuple[int, int] | None,
    kept: int | None,
) -> None:
    """An error about a request reaches the client as one about its packet to the VIP, with the VIP
    as source, whether the backend, a router or the balancer sent it (RFC 5508 REQ-5c).
    """
    senders = {"backend": family.backends[0], "router": family.router, "balancer": family.vip}
    before, after = towards_client(family, kind, senders[sender], inner, ports, kept)
    assert run(world(family), before) == (REWRITTEN, after)


ways = pytest.mark.parametrize("way", [towards_backend, towards_client])
Way = Callable[
    [Family, str, str, Inner, "tuple[int, int] | None", "int | None"], tuple[bytes, bytes]
]


@ways
@families
def test_an_error_neither_refreshes_nor_ends_a_flow(family: Family, way: Way) -> None:
    """State and time of every flow stay (RFC 5508 REQ-4), and nothing is counted as refused."""
    path = world(family)
    flows = snapshot(path)
    for kind in ERRORS[family.number]:
        for _, build, ports in INNERS:
            before, _ = way(family, kind, family.router, build, ports, None)
            assert run(path, before, now=100.0)[0] == REWRITTEN
    assert snapshot(path) == flows
    assert sum(path.counts) == 0


@ways
@families
def test_a_datagram_inside_without_checksum_keeps_none(family: Family, way: Way) -> None:
    """0 means no checksum, also inside an error."""

    def build(family: Family, source: str, destination: str, port: int, reply: bool) -> Packet:
        packet = inner_udp(family, source, destination, port, reply)
        packet[UDP].chksum = 0
        return packet

    before, after = way(family, TOO_BIG[family.number], family.router, build, (flow.UDP, 53), None)
    assert run(world(family), before) == (REWRITTEN, after)


@ways
@families
def test_a_computed_zero_inside_is_all_ones(family: Family, way: Way) -> None:
    """A datagram that a backend sent with 0xffff is returned to it with 0xffff."""
    transport = (20 if family.number == 4 else 40) * 2 + 8

    def inner(word: bytes) -> Inner:
        def build(family: Family, source: str, destination: str, port: int, reply: bool) -> Packet:
            packet = inner_udp(family, source, destination, port, reply)
            packet[Raw].load = word
            return packet

        return build

    kind, ports = TOO_BIG[family.number], (flow.UDP, 53)
    _, after = way(family, kind, family.router, inner(b"\0\0"), ports, None)
    word = after[transport + 6 : transport + 8]
    before, after = way(family, kind, family.router, inner(word), ports, None)
    assert after[transport + 6 : transport + 8] == b"\xff\xff"
    assert run(world(family), before) == (REWRITTEN, after)


@ways
@families
def test_half_a_checksum_inside_is_left_alone(family: Family, way: Way) -> None:
    """A segment that is cut in the middle of its checksum keeps the byte there is of it, and the
    error's own checksum covers that.
    """
    kind, ports = TOO_BIG[family.number], (flow.TCP, 80)
    before, _ = way(family, kind, family.router, inner_tcp, ports, 17)
    _, after = way(family, kind, family.router, inner_tcp, ports, 16)
    size = 20 if family.number == 4 else 40
    addresses = (IP if family.number == 4 else IPv6)(after)
    about = Raw(after[size + 8 :] + before[-1:])
    header = family.ip(addresses.src, addresses.dst) / ERRORS[family.number][kind].copy()
    assert run(world(family), before) == (REWRITTEN, bytes(header / about))


def with_options(between: list[Packet], **fields: object) -> Inner:
    """A segment behind IPv4 options or IPv6 extension headers."""

    def build(family: Family, source: str, destination: str, port: int, reply: bool) -> Packet:
        packet = family.ip(source, destination, **fields)
        for layer in between:
            packet /= layer.copy()
        sport, dport = (port, CLIENT_PORT) if reply else (CLIENT_PORT, port)
        return packet / TCP(sport=sport, dport=dport, flags="A") / Raw(b"data")

    return build


@ways
@pytest.mark.parametrize(
    ("family", "inner"),
    [
        (V4, with_options([], options=[IPOption_NOP()] * 8)),
        (V4, with_options([], flags="MF", id=7)),
        (V6, with_options([IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()])),
        (V6, with_options([IPv6ExtHdrFragment(m=1, id=7)])),
        (V6, with_options([IPv6ExtHdrFragment(id=7)])),
    ],
    ids=["options", "first fragment", "extension headers", "first fragment", "whole in a fragment"],
)
def test_headers_and_first_fragments_inside(family: Family, inner: Inner, way: Way) -> None:
    """The inner packet may have options or extension headers, or be a first fragment."""
    before, after = way(family, TOO_BIG[family.number], family.router, inner, (flow.TCP, 80), None)
    assert run(world(family), before) == (REWRITTEN, after)


def test_options_ahead_of_the_error() -> None:
    """The error itself may have IPv4 options."""
    before, after = (
        bytes(
            V4.ip(V4.router, outer, options=[IPOption_NOP()] * 4)
            / ICMP(type=3, code=4, nexthopmtu=1400)
            / Raw(bytes(inner_tcp(V4, outer, V4.client, port, True)))
        )
        for outer, port in ((V4.vip, 80), (V4.backends[0], 8080))
    )
    assert run(world(V4), before) == (REWRITTEN, after)


@families
def test_an_extension_behind_the_inner_packet_stays(family: Family) -> None:
    """Bytes behind the inner packet, as RFC 4884 puts them there, are covered and kept."""
    kind, tail = TOO_BIG[family.number], b"\x20\x00\x12\x34\x00\x08\x01\x01mpls"
    before, after = (
        bytes(
            family.ip(family.router, outer)
            / ERRORS[family.number][kind].copy()
            / Raw(bytes(inner_udp(family, outer, family.client, port, True)) + tail)
        )
        for outer, port in ((family.vip, 53), (family.backends[0], 5353))
    )
    assert run(world(family), before) == (REWRITTEN, after)


@families
def test_the_right_flow_of_several(family: Family) -> None:
    """With flows to three backends each error reaches the backend of its
    inner packet (RFC 7690).
    """
    path = nat(service(family, ports=((80, 80),)))
    for number, server in enumerate(family.backends):
        run(path, family.syn(client_port=CLIENT_PORT + number))
        segment = TCP(sport=80, dport=CLIENT_PORT + number, flags="A")
        about = [bytes(family.ip(a, family.client) / segment) for a in (family.vip, server)]
        header = ERRORS[family.number][TOO_BIG[family.number]]
        before = family.ip(family.router, family.vip) / header.copy() / Raw(about[0])
        after = family.ip(family.router, server) / header.copy() / Raw(about[1])
        assert run(path, bytes(before)) == (REWRITTEN, bytes(after))


@families
def test_an_error_with_a_wrong_checksum_is_dropped(family: Family) -> None:
    """A damaged error is ignored (RFC 5508 REQ-3)."""
    before, _ = towards_backend(
        family, TOO_BIG[family.number], family.router, inner_tcp, (flow.TCP, 80), None
    )
    at = (20 if family.number == 4 else 40) + 2
    for error_bit in (1, 0x80):
        wrong = bytearray(before)
        wrong[at] ^= error_bit
        path = world(family)
        assert run(path, bytes(wrong)) == (DROP, bytes(wrong))
        assert path.counts[BAD_CHECKSUM] == 1


SEEDS = [
    way(family, kind, family.router, build, ports, kept)[0]
    for way in (towards_backend, towards_client)
    for family in FAMILIES
    for kind in list(ERRORS[family.number])[:2]
    for _, build, ports in INNERS
    for kept in (8, None)
]


@SOME
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_no_damage_raises(seed: bytes, data: st.DataObject) -> None:
    """Every damaged or truncated error gets a verdict, and nothing outside of it is read."""
    packet = bytearray(seed[: data.draw(st.integers(1, len(seed)))])
    for _ in range(data.draw(st.integers(0, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    size = len(packet)
    if data.draw(st.booleans()) and size >= 6:  # a length that tells the truth gets further in
        if packet[0] >> 4 == 4:
            packet[2:4] = size.to_bytes(2, "big")
        else:
            packet[4:6] = max(size - 40, 0).to_bytes(2, "big")
    path = world(V4 if seed[0] >> 4 == 4 else V6)
    outcome, after = run(path, bytes(packet))
    assert (outcome == REWRITTEN) == (sum(path.counts) == 0)
    assert outcome == REWRITTEN or after == packet


def test_errors_in_the_middle_of_a_buffer() -> None:
    """Offsets inside an error are those of the buffer: the guard holds at any place of it."""
    before, after = towards_client(V6, "packet too big", V6.router, inner_tcp, (flow.TCP, 80), 8)
    for extra in (0, 1, 13):
        buf = guarded(b"\0" * extra + before)
        if isinstance(buf, Guarded):
            buf.window = (FRINGE + extra, FRINGE + extra + len(before))
        assert world(V6).handle(buf, FRINGE + extra, len(before), 0, 0.0) == REWRITTEN
        assert bytes(buf)[FRINGE + extra : -FRINGE] == after

"""Each kind of packet, in both directions and both families.

scapy builds every expected packet from scratch with the other address and port, checksums included.
Flows are in ``test_datapath_flows``, refusals in ``test_datapath_refusals``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import (
    CHECKSUMS,
    COMPLETE,
    FAMILIES,
    KERNELS,
    SOME,
    UNFINISHED,
    V4,
    V6,
    Family,
    Guarded,
    backend,
    finished,
    nat,
    run,
    service,
    unfinished,
    with_checksum,
)
from scapy.layers.inet import TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Packet, Raw

from paraglider.core import flow
from paraglider.core.verdict import DROP, PASS, REWRITTEN
from paraglider.forward.nat.datapath import NatDatapath

CLIENT_PORT, VIP_PORT, MAPPED_PORT = 40000, 80, 8080

#: builds a packet from the addresses and the ports of both ends
Build = Callable[[str, str, int, int], Packet]


def tcp(family: Family, data: bytes, *between: Packet, **fields: object) -> Build:
    """A builder of TCP segments; ``between`` stands between the headers."""

    def build(source: str, destination: str, sport: int, dport: int) -> Packet:
        head = family.ip(source, destination, **fields)
        for layer in between:
            head /= layer.copy()
        options = [("Timestamp", (7, 9)), ("EOL", None)] if data else []
        return head / TCP(sport=sport, dport=dport, flags="PA", options=options) / Raw(data)

    return build


def udp(
    family: Family, data: bytes, *between: Packet, checksum: int | None = None, **fields: object
) -> Build:
    """A builder of UDP datagrams; a ``checksum`` of 0 means none."""

    def build(source: str, destination: str, sport: int, dport: int) -> Packet:
        head = family.ip(source, destination, **fields)
        for layer in between:
            head /= layer.copy()
        return head / UDP(sport=sport, dport=dport, chksum=checksum) / Raw(data)

    return build


RECORD = [IPOption_RR(length=39, routers=["0.0.0.0"] * 9), IPOption_NOP()]
HOP, DESTINATION, WHOLE = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(id=9)
ROUTED = IPv6ExtHdrRouting(addresses=["2001:db8::aa", "2001:db8::bb"], segleft=0)

SHAPES = [
    *(
        (f"IPv{family.number}: {sentence}", family, build)
        for family in FAMILIES
        for sentence, build in (
            ("a TCP segment without data", tcp(family, b"")),
            ("a TCP segment of even length", tcp(family, b"even")),
            ("a TCP segment of odd length", tcp(family, b"odd")),
            ("TCP, as long as GSO makes it", tcp(family, b"\xff" * 65000)),
            ("a UDP datagram without data", udp(family, b"")),
            ("a UDP datagram of a few bytes", udp(family, b"odd")),
            ("a UDP datagram of even length", udp(family, b"where is everybody")),
            ("a UDP datagram of odd length", udp(family, b"where is everybody?")),
            ("a UDP datagram of 8,000 bytes", udp(family, b"whole again " * 666)),
        )
    ),
    ("IPv4: UDP without checksum keeps none", V4, udp(V4, b"-" * 30, checksum=0)),
    ("IPv4: short UDP without checksum keeps none", V4, udp(V4, b"-", checksum=0)),
    ("IPv4: don't fragment", V4, tcp(V4, b"data", flags="DF", id=77, tos=8, ttl=3)),
    ("IPv4: TCP behind one word of options", V4, tcp(V4, b"data", options=[IPOption_NOP()] * 4)),
    ("IPv4: UDP behind all the options there can be", V4, udp(V4, b"odd", options=RECORD)),
    ("IPv6: traffic class and flow label", V6, tcp(V6, b"data", tc=8, fl=0x12345, hlim=3)),
    ("IPv6: TCP behind a hop-by-hop header", V6, tcp(V6, b"data", HOP)),
    ("IPv6: UDP behind destination options", V6, udp(V6, b"odd", DESTINATION)),
    ("IPv6: a fragment that is the whole packet (RFC 6946)", V6, udp(V6, b"data", WHOLE)),
    ("IPv6: TCP behind a routing header that is used up", V6, tcp(V6, b"odd", ROUTED)),
    ("IPv6: several extension headers", V6, tcp(V6, b"data", HOP, DESTINATION, ROUTED, WHOLE)),
]
shapes = pytest.mark.parametrize(
    ("family", "build"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES]
)
ports = pytest.mark.parametrize("port", [0, MAPPED_PORT], ids=["same port", "port mapped"])
families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
protocols = pytest.mark.parametrize("protocol", [flow.TCP, flow.UDP], ids=["TCP", "UDP"])


def world(family: Family, port: int = 0) -> NatDatapath:
    """A service with one backend, and a flow of TCP and of UDP to it from the client's port."""
    path = nat(
        service(
            family,
            protocols=(flow.TCP, flow.UDP),
            ports=((VIP_PORT, VIP_PORT),),
            backends=[backend(family.backends[0], port)],
        )
    )
    for packet in (family.syn(VIP_PORT), family.datagram(VIP_PORT)):
        assert run(path, packet)[0] == REWRITTEN
    return path


def out(family: Family, build: Build, port: int) -> tuple[bytes, bytes]:
    """A packet from the client: the input, and the expected output to the backend."""
    before = build(family.client, family.vip, CLIENT_PORT, VIP_PORT)
    after = build(family.client, family.backends[0], CLIENT_PORT, port or VIP_PORT)
    return bytes(before), bytes(after)


def back(family: Family, build: Build, port: int) -> tuple[bytes, bytes]:
    """A packet from the backend: the input, and the expected output to the client."""
    before = build(family.backends[0], family.client, port or VIP_PORT, CLIENT_PORT)
    after = build(family.vip, family.client, VIP_PORT, CLIENT_PORT)
    return bytes(before), bytes(after)


ways = pytest.mark.parametrize("way", [out, back])
Way = Callable[[Family, Build, int], tuple[bytes, bytes]]


@shapes
@ports
@ways
def test_a_packet_of_a_flow(family: Family, build: Build, port: int, way: Way) -> None:
    """Only the address and port of the VIP or the backend change."""
    before, after = way(family, build, port)
    assert run(world(family, port), before) == (REWRITTEN, after)


@ports
@families
def test_the_packet_that_opens_a_flow(family: Family, port: int) -> None:
    """A SYN and a first datagram are forwarded to the backend, as scapy builds them."""
    path = nat(
        service(
            family,
            protocols=(flow.TCP, flow.UDP),
            ports=((VIP_PORT, VIP_PORT),),
            backends=[backend(family.backends[0], port)],
        )
    )
    syn = TCP(sport=CLIENT_PORT, dport=port or VIP_PORT, flags="S", options=[("MSS", 1460)])
    expected = bytes(family.ip(family.client, family.backends[0]) / syn)
    assert run(path, family.syn()) == (REWRITTEN, expected)
    before, after = out(family, udp(family, b"hello"), port)
    assert run(path, before) == (REWRITTEN, after)


@families
def test_echo_is_balanced_both_ways(family: Family) -> None:
    """An echo request reaches a backend and its reply comes from the VIP."""
    path = nat(service(family, echo=True))
    client, vip, server = family.client, family.vip, family.backends[0]

    def ping(source: str, destination: str, reply: bool) -> bytes:
        return bytes(family.echo(source, destination, reply=reply, identifier=0x1234))

    assert run(path, ping(client, vip, False)) == (REWRITTEN, ping(client, server, False))
    assert run(path, ping(server, client, True)) == (REWRITTEN, ping(vip, client, True))
    assert run(path, ping(client, vip, False)) == (REWRITTEN, ping(client, server, False))


@families
def test_echo_flows_are_told_apart_by_identifier(family: Family) -> None:
    """Two pings of one client are two flows, and may go to two backends."""
    path = nat(service(family, echo=True))
    for identifier, server in ((1, 0), (2, 1), (1, 0)):
        request = family.echo(family.client, family.vip, reply=False, identifier=identifier)
        there = family.echo(
            family.client, family.backends[server], reply=False, identifier=identifier
        )
        assert run(path, bytes(request)) == (REWRITTEN, bytes(there))


@families
@pytest.mark.parametrize("offset", [0, 1, 7, 40, 113])
def test_the_packet_may_stand_anywhere_in_the_buffer(family: Family, offset: int) -> None:
    """Queue I/O hands over its own buffer: the packet begins at any offset, odd ones too."""
    path = world(family)
    for way in (out, back):
        before, after = way(family, tcp(family, b"data"), 0)
        buf = bytearray(b"\x11" * offset + before + b"\x22" * 9)
        assert path.handle(buf, offset, len(before), COMPLETE, 0.0) == REWRITTEN
        assert buf == b"\x11" * offset + after + b"\x22" * 9


@families
def test_padding_behind_the_packet_stays(family: Family) -> None:
    """Bytes behind the IP length are neither summed nor touched."""
    path = world(family)
    before, after = out(family, udp(family, b"odd"), 0)
    assert run(path, before + b"\xee" * 5) == (REWRITTEN, after + b"\xee" * 5)
    partial = unfinished(before, flow.UDP)
    assert run(path, partial + b"\xee" * 5, UNFINISHED) == (REWRITTEN, after + b"\xee" * 5)


# Checksums that are not yet what they are on the wire.

LENGTHS = pytest.mark.parametrize("data", [b"", b"odd", b"even", b"\xff" * 1447])


@ways
@ports
@LENGTHS
@protocols
@families
def test_an_unfinished_checksum_is_finished(
    family: Family, protocol: int, data: bytes, port: int, way: Way
) -> None:
    """If only the pseudo-header was summed, the packet leaves with its full checksum."""
    before, after = way(family, (tcp if protocol == flow.TCP else udp)(family, data), port)
    partial = unfinished(before, protocol)
    assert run(world(family, port), partial, UNFINISHED) == (REWRITTEN, after)


@ways
@ports
@LENGTHS
@protocols
@families
def test_a_checksum_left_to_the_kernel(
    family: Family, protocol: int, data: bytes, port: int, way: Way
) -> None:
    """The pseudo-header's sum is that of the new addresses, so that the kernel finishes it."""
    before, after = way(family, (tcp if protocol == flow.TCP else udp)(family, data), port)
    verdict, result = run(world(family, port), unfinished(before, protocol), KERNELS)
    assert (verdict, finished(result, protocol)) == (REWRITTEN, after)


@pytest.mark.parametrize(
    ("family", "build", "transport"),
    [(V4, udp(V4, b"odd", options=RECORD), 60), (V6, udp(V6, b"odd", HOP, DESTINATION), 56)],
    ids=["IPv4 options", "IPv6 extension headers"],
)
def test_an_unfinished_checksum_behind_options(
    family: Family, build: Build, transport: int
) -> None:
    """The sum begins at the transport header, wherever that is."""
    before, after = out(family, build, MAPPED_PORT)
    partial = unfinished(before, flow.UDP, transport)
    path = world(family, MAPPED_PORT)
    assert run(path, partial, UNFINISHED) == (REWRITTEN, after)
    _, left = run(path, partial, KERNELS)
    assert finished(left, flow.UDP, transport) == after


@ways
@pytest.mark.parametrize("more", [b"", b"and more than forty bytes in all"])
@families
def test_a_computed_zero_is_sent_as_all_ones(family: Family, more: bytes, way: Way) -> None:
    """A UDP checksum of 0 would mean none (RFC 768), so 0xffff is sent."""
    transport = 20 if family.number == 4 else 40
    _, after = way(family, udp(family, b"\0\0" + more), MAPPED_PORT)
    word = after[transport + 6 : transport + 8]  # what, added to the sum, makes it all ones
    before, after = way(family, udp(family, word + more), MAPPED_PORT)
    assert after[transport + 6 : transport + 8] == b"\xff\xff"
    path = world(family, MAPPED_PORT)
    assert run(path, before) == (REWRITTEN, after)
    assert run(path, unfinished(before, flow.UDP), UNFINISHED) == (REWRITTEN, after)


@ways
@protocols
@families
def test_all_ones_count_as_zero(family: Family, protocol: int, way: Way) -> None:
    """An incoming checksum of 0xffff is as valid as 0, and the outgoing one is correct too."""
    transport = 20 if family.number == 4 else 40
    at = transport + (16 if protocol == flow.TCP else 6)
    build = tcp if protocol == flow.TCP else udp
    before, _ = way(family, build(family, b"\0\0"), 0)
    before, after = way(family, build(family, before[at : at + 2]), 0)
    assert before[at : at + 2] in (b"\0\0", b"\xff\xff")
    spelled = with_checksum(before, protocol, 0xFFFF)
    assert run(world(family), spelled) == (REWRITTEN, after)


@ways
@protocols
@families
@SOME
@given(error=st.integers(1, 65534))
def test_a_wrong_checksum_stays_wrong(family: Family, protocol: int, way: Way, error: int) -> None:
    """A packet damaged on its way is still damaged behind us, so that its receiver notices."""
    before, after = way(family, (tcp if protocol == flow.TCP else udp)(family, b"data"), 0)
    at = (20 if family.number == 4 else 40) + (16 if protocol == flow.TCP else 6)
    right = int.from_bytes(before[at : at + 2], "big")
    wrong = (right + error) % 65535 or 0xFFFF
    verdict, result = run(world(family), with_checksum(before, protocol, wrong))
    assert verdict == REWRITTEN
    assert result[:at] + result[at + 2 :] == after[:at] + after[at + 2 :]
    value, expected = (int.from_bytes(p[at : at + 2], "big") for p in (result, after))
    assert (value - expected) % 65535 == error


@pytest.mark.parametrize("way", [out, back])
def test_a_wrong_ipv4_header_checksum_stays_wrong(way: Way) -> None:
    """The next host drops what it would have dropped without us."""
    before, after = way(V4, tcp(V4, b"data"), 0)
    wrong = bytearray(before)
    wrong[10] ^= 0x40
    verdict, result = run(world(V4), bytes(wrong))
    assert (verdict, result[12:]) == (REWRITTEN, after[12:])
    assert result[10:12] != after[10:12]


unicast = {
    V4: st.integers(0x01000001, 0x7EFFFFFE).map(lambda n: n.to_bytes(4, "big")),
    V6: st.binary(min_size=15, max_size=15).map(lambda tail: b"\x20" + tail),
}


@families
@SOME
@given(data=st.data())
def test_any_addresses_ports_and_data(family: Family, data: st.DataObject) -> None:
    """For any addresses, ports and data, both directions equal scapy's packets."""

    def address() -> str:
        return str(ipaddress.ip_address(data.draw(unicast[family])))

    client, vip, server = address(), address(), address()
    if len({client, vip, server}) < 3:
        return
    sport, dport, mapped = (data.draw(st.integers(1, 65535)) for _ in range(3))
    build = udp(family, data.draw(st.binary(max_size=200)))
    path = nat(
        service(
            family,
            vip=vip,
            protocols=(flow.UDP,),
            ports=((dport, dport),),
            backends=[backend(server, mapped)],
        )
    )
    request, there = build(client, vip, sport, dport), build(client, server, sport, mapped)
    answer, here = build(server, client, mapped, sport), build(vip, client, dport, sport)
    assert run(path, bytes(request)) == (REWRITTEN, bytes(there))
    assert run(path, bytes(answer)) == (REWRITTEN, bytes(here))


# Garbage.

SEEDS = [
    bytes(build(*ends))
    for _, family, build in SHAPES
    for ends in (
        (family.client, family.vip, CLIENT_PORT, VIP_PORT),
        (family.backends[0], family.client, VIP_PORT, CLIENT_PORT),
    )
    if len(bytes(build(*ends))) < 400
]


def check_garbage(path: NatDatapath, packet: bytes, checksum: int) -> None:
    """One verdict; unless rewritten, one count and an unchanged buffer."""
    before = sum(path.counts)
    verdict, after = run(path, packet, checksum)
    refused = sum(path.counts) - before
    if verdict == REWRITTEN:
        assert refused == 0
    else:
        assert verdict in (PASS, DROP)
        assert (refused, after) == (1, packet)


states = st.sampled_from(CHECKSUMS)


@SOME
@given(st.lists(st.tuples(st.binary(max_size=150), states), max_size=10))
def test_no_bytes_raise(packets: list[tuple[bytes, int]]) -> None:
    """All bytes get a verdict, and nothing outside of them is read or written."""
    path = world(V4)
    for packet, checksum in packets:
        check_garbage(path, packet, checksum)


@SOME
@given(st.lists(st.tuples(st.sampled_from(SEEDS), states), min_size=1, max_size=8), st.data())
def test_no_damage_raises(packets: list[tuple[bytes, int]], data: st.DataObject) -> None:
    """The same for packets of live flows that were cut, stretched or changed here and there."""
    worlds = {4: world(V4, MAPPED_PORT), 6: world(V6)}
    for seed, checksum in packets:
        packet = bytearray(seed)
        for _ in range(data.draw(st.integers(0, 4))):
            at = data.draw(st.integers(0, min(len(packet), 80) - 1))
            packet[at] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(-10, 60))
        wire = bytes(packet[: len(packet) - cut]) if cut > 0 else bytes(packet) + bytes(-cut)
        check_garbage(worlds[seed[0] >> 4], wire, checksum)


def test_the_guard_guards() -> None:
    """The test buffer detects reads and writes outside the packet."""
    buf = Guarded(bytes(38))
    buf.window = (16, 22)
    for attempt in (lambda: buf[0], lambda: buf[20:30], lambda: buf.__setitem__(30, 0)):
        with pytest.raises(AssertionError, match="outside of the packet"):
            attempt()

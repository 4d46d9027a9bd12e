"""Packets in, packets out: what the program carries, and what it leaves alone.

Each frame passes the program in the kernel (BPF_PROG_TEST_RUN), whose routes are a namespace's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, TCP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6PacketTooBig,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from paraglider.bpf import layout
from tests.bpf.carrying import (
    CLIENT_PORT,
    FIRST,
    MAPPED_PORT,
    MTU,
    SECOND,
    VIP_PORT,
    Bed,
    Build,
    builder,
    ip,
    tcp,
    udp,
)
from tests.core.packets import FAMILIES, V4, V6, Family

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])
mappings = pytest.mark.parametrize("mapped", [False, True], ids=("same-port", "mapped"))


def way(family: Family, build: Build, back: bool, port: int, ttl: int = 64) -> tuple[bytes, bytes]:
    """A packet of the client's flow, and what leaves: to the backend's ``port``, or ``back``."""
    client, vip, backend = family.client, family.vip, family.backends[0]
    if back:
        return (
            bytes(build(backend, client, port, CLIENT_PORT, ttl)),
            bytes(build(vip, client, VIP_PORT, CLIENT_PORT, ttl - 1)),
        )
    return (
        bytes(build(client, vip, CLIENT_PORT, VIP_PORT, ttl)),
        bytes(build(client, backend, CLIENT_PORT, port, ttl - 1)),
    )


@families
@protocols
@mappings
@pytest.mark.parametrize("back", [False, True], ids=("out", "back"))
@pytest.mark.parametrize("alias", [False, True], ids=("origin", "alias"))
def test_a_packet_of_a_flow_is_translated(
    bed: Bed, family: Family, protocol: str, mapped: bool, back: bool, alias: bool
) -> None:
    """It leaves with the other address and port and one hop less, whether the origin of a reply or
    an alias leads to the flow; all checksums are right, also the sum that a device has computed,
    which the kernel compares; flow and translation count it.
    """
    port = MAPPED_PORT if mapped else VIP_PORT
    bed.translate(family, mapped=mapped)
    bed.install(family, protocol)
    if alias:
        ends = (family.backends[0], family.client, (port, CLIENT_PORT))
        bed.install(family, protocol, *ends, flags=layout.ALIAS)
    else:
        bed.origin(family, protocol, port)
    before, total = bed.traffic(), 0
    for data in (b"", b"even", b"an odd number"):
        came, leaves = way(family, builder(family, protocol, data), back, port)
        ran = bed.run(bed.frame(came, "priv" if back else "pub"), summed=True)
        assert (ran.carried, ran.counted, ran.hook) == (True, {"carried": 1}, bed.hook)
        assert ran.packet == leaves
        total += len(came)
    counted = [0, 0, 3, total] if back else [3, total, 0, 0]
    assert [now - then for now, then in zip(bed.traffic(), before, strict=True)] == counted
    entry = bed.entry(family, protocol)
    assert (entry.packets_out, entry.packets_back) == (counted[0], counted[2])
    assert entry.seen > 0
    assert entry.flags == layout.ESTABLISHED
    assert bed.events() == []


def other(family: Family, build: Build, **ends: object) -> bytes:
    """A packet of the client's to the VIP, but for the ``ends`` that differ."""
    plain = {"source": family.client, "destination": family.vip}
    plain |= {"sport": CLIENT_PORT, "dport": VIP_PORT, "ttl": 64}
    return bytes(build(**{**plain, **ends}))


def headed(family: Family, *between: Packet, **fields: object) -> bytes:
    """A TCP segment of the client's with other fields of the IP header, or headers after it."""
    packet = ip(family, family.client, family.vip, 64, **fields)
    for header in between:
        packet /= header
    return bytes(packet / TCP(sport=CLIENT_PORT, dport=VIP_PORT, flags="A") / Raw(b"0123456789"))


def changed(packet: bytes, at: int, value: int) -> bytes:
    """``packet`` with another byte."""
    return packet[:at] + bytes([value]) + packet[at + 1 :]


PLAIN4, PLAIN6 = other(V4, tcp(V4)), other(V6, tcp(V6))

#: sentence, reason, packet
REFUSED: list[tuple[str, str, bytes]] = [
    ("a SYN is decided by the worker", "syn", other(V4, tcp(V4, "S"))),
    ("a SYN with data too (RFC 7413)", "syn", other(V6, tcp(V6, "S", b"early"))),
    ("a RST is judged by the worker", "rst", other(V4, tcp(V4, "R"))),
    ("a RST with ACK too", "rst", other(V6, tcp(V6, "RA"))),
    ("a segment without ACK is none of a flow's", "flags", other(V4, tcp(V4, "P"))),
    ("nor is one without any flag", "flags", other(V6, tcp(V6, ""))),
    ("nor a FIN without ACK", "flags", other(V4, tcp(V4, "F"))),
    ("nor SYN, FIN and ACK together", "flags", other(V4, tcp(V4, "SFA"))),
    ("a client sends no SYN+ACK", "flags", other(V4, tcp(V4, "SA"))),
    ("another client's port is another flow", "no_flow", other(V4, tcp(V4), sport=CLIENT_PORT + 1)),
    ("another port of the VIP is another flow", "no_flow", other(V6, tcp(V6), dport=VIP_PORT + 1)),
    ("another client is another flow", "no_flow", other(V6, tcp(V6), source="2001:db8::101")),
    ("another VIP is another flow", "no_flow", other(V4, tcp(V4), destination=V4.other_vip)),
    ("a flow of UDP is none of TCP", "no_flow", other(V4, udp(V4, b"query of 12 b"))),
    ("the last hop is the stack's to answer", "ttl", other(V4, tcp(V4), ttl=1)),
    ("a TTL of 0 is the stack's to drop", "ttl", other(V6, tcp(V6), ttl=0)),
    ("IPv4 options", "options", headed(V4, options=[IPOption_RR()])),
    ("an IPv4 header that says 16 bytes", "options", changed(PLAIN4, 0, 0x44)),
    ("a first fragment", "fragment", headed(V4, flags="MF")),
    ("a later fragment", "fragment", headed(V4, frag=100)),
    ("IPv6's first fragment", "fragment", headed(V6, IPv6ExtHdrFragment(m=1))),
    ("hop-by-hop options", "options", headed(V6, IPv6ExtHdrHopByHop())),
    ("destination options", "options", headed(V6, IPv6ExtHdrDestOpt())),
    ("a routing header", "options", headed(V6, IPv6ExtHdrRouting())),
    ("ICMP", "protocol", bytes(ip(V4, V4.client, V4.vip, 64) / ICMP() / Raw(bytes(20)))),
    ("an ICMP error", "protocol", bytes(ip(V4, V4.client, V4.vip, 64) / ICMP(type=3) / PLAIN4)),
    ("ICMPv6", "protocol", V6.echo(V6.client, V6.vip, reply=False, identifier=7).build()),
    (
        "a packet too big, of a router",
        "protocol",
        bytes(ip(V6, "2001:db8::1", V6.vip, 64) / ICMPv6PacketTooBig(mtu=1280) / PLAIN6),
    ),
    ("a packet longer than its frame", "short", changed(PLAIN4, 3, len(PLAIN4) + 1)),
    ("IPv6 longer than its frame", "short", changed(PLAIN6, 5, len(PLAIN6) - 40 + 1)),
    ("a packet shorter than its TCP header", "short", changed(PLAIN4, 3, 39)),
    ("IPv6 shorter than its TCP header", "short", changed(PLAIN6, 5, 19)),
    ("a jumbo payload", "short", changed(changed(PLAIN6, 4, 0), 5, 0)),
    ("more than the route takes", "too_big", other(V4, tcp(V4, data=bytes(MTU - 20 - 32 + 1)))),
    ("IPv6, too", "too_big", other(V6, tcp(V6, data=bytes(MTU - 40 - 32 + 1)))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "packet"),
    [(reason, packet) for _, reason, packet in REFUSED],
    ids=[sentence.replace(" ", "-") for sentence, _, _ in REFUSED],
)
def test_whatever_is_not_plainly_of_a_flow_passes(bed: Bed, reason: str, packet: bytes) -> None:
    """It goes on unchanged, is counted by its reason, and leaves its flow as it was."""
    family = V4 if packet[0] >> 4 == 4 else V6
    bed.prepare(family, "tcp")
    frame = bed.frame(packet)
    before, entry = bed.traffic(), bed.entry(family, "tcp")
    ran = bed.run(frame)
    assert (ran.carried, ran.counted, ran.frame) == (False, {reason: 1}, frame)
    assert bed.entry(family, "tcp") == entry
    assert bed.traffic() == before
    assert bed.events() == []


@families
@protocols
def test_the_longest_packet_of_a_route(bed: Bed, family: Family, protocol: str) -> None:
    """What fits the route's MTU is carried, one byte more is not; a GSO packet is measured by its
    segments with their headers and options, and counted as them.
    """
    bed.prepare(family, protocol)
    head = (20 if family.number == 4 else 40) + (32 if protocol == "tcp" else 8)
    for length, reason in ((MTU, "carried"), (MTU + 1, "too_big")):
        packet = other(family, builder(family, protocol, bytes(length - head)))
        assert len(packet) == length
        assert bed.run(bed.frame(packet)).counted == {reason: 1}
    long = other(family, builder(family, protocol, bytes(2 * (MTU - head))))
    for size, reason in ((MTU - head, "carried"), (MTU - head + 1, "too_big")):
        before, entry = bed.traffic(), bed.entry(family, protocol)
        ran = bed.run(bed.frame(long), segment=size, segments=2)
        assert ran.counted == {reason: 1}
        if reason == "carried":
            assert bed.traffic()[:2] == (before[0] + 2, before[1] + 2 * MTU)
            assert bed.entry(family, protocol).packets_out == entry.packets_out + 2


@pytest.mark.parametrize(
    ("reason", "frame"),
    [
        ("vlan", Ether(dst="02:00:00:00:00:01") / Dot1Q(vlan=5) / Raw(PLAIN4)),
        ("other_host", Ether(dst="02:00:00:00:00:99", type=0x800) / Raw(PLAIN4)),
        ("other_host", Ether(dst="ff:ff:ff:ff:ff:ff", type=0x800) / Raw(PLAIN4)),
        ("other_host", Ether(dst="33:33:00:00:00:01", type=0x86DD) / Raw(PLAIN6)),
        ("options", Ether(dst="02:00:00:00:00:01", type=0x800) / Raw(PLAIN6)),
        ("options", Ether(dst="02:00:00:00:00:01", type=0x86DD) / Raw(PLAIN4 + bytes(40))),
        ("not_ip", Ether(dst="02:00:00:00:00:01", type=0x0806) / Raw(bytes(46))),
        ("not_ip", Ether(dst="02:00:00:00:00:01", type=0x8863) / Raw(PLAIN4)),
    ],
)
def test_frames_of_others(bed: Bed, reason: str, frame: Packet) -> None:
    """Frames with a tag, for other hosts, for all, or of other protocols pass, though the packet in
    them is of a flow.
    """
    bed.prepare(V4, "tcp")
    bed.prepare(V6, "tcp")
    ran = bed.run(bytes(frame))
    assert (ran.carried, ran.counted, ran.frame) == (False, {reason: 1}, bytes(frame))


@families
def test_padding_stays(bed: Bed, family: Family) -> None:
    """Bytes after a short packet, Ethernet's padding, are neither counted nor summed."""
    bed.prepare(family, "udp")
    came, leaves = way(family, udp(family, b"?"), False, VIP_PORT)
    before = bed.traffic()
    ran = bed.run(bed.frame(came) + b"padding")
    assert (ran.counted, ran.packet) == ({"carried": 1}, leaves + b"padding")
    assert bed.traffic()[1] - before[1] == len(came)


def test_udp_without_checksum(bed: Bed) -> None:
    """Over IPv4 a datagram without checksum stays without; over IPv6 there is no such datagram."""
    bed.prepare(V4, "udp", mapped=True)
    for back in (False, True):
        came, leaves = way(V4, udp(V4, b"query", checksum=0), back, MAPPED_PORT)
        ran = bed.run(bed.frame(came), summed=True)
        assert (ran.counted, ran.packet) == ({"carried": 1}, leaves)
    bed.prepare(V6, "udp", mapped=True)
    for back in (False, True):
        came, _ = way(V6, udp(V6, b"query", checksum=0), back, MAPPED_PORT)
        assert bed.run(bed.frame(came)).counted == {"no_checksum": 1}


@families
@pytest.mark.parametrize("back", [False, True], ids=("out", "back"))
def test_a_computed_checksum_of_zero(bed: Bed, family: Family, back: bool) -> None:
    """A UDP checksum that comes out as 0 is sent as 0xffff (RFC 768), a TCP one as 0."""
    for protocol, at, wanted in (("udp", 6, 0xFFFF), ("tcp", 16, 0)):
        bed.prepare(family, protocol)
        start = (20 if family.number == 4 else 40) + at
        _, leaves = way(family, builder(family, protocol, bytes(2)), back, VIP_PORT)
        data = leaves[start : start + 2]  # what the sum lacks
        came, leaves = way(family, builder(family, protocol, data), back, VIP_PORT)
        assert int.from_bytes(leaves[start : start + 2], "big") == wanted
        assert bed.run(bed.frame(came)).packet == leaves


@families
def test_states_of_a_translation(bed: Bed, family: Family) -> None:
    """A lost backend's flows are the worker's at once, those of UDP alone where only they are; so
    are those of a translation that was never written or is of the other family.
    """
    bed.prepare(family, "tcp")
    bed.prepare(family, "udp")
    for state, tcp_reason, udp_reason in (
        (layout.LOST_FLOWS, "lost", "lost"),
        (layout.LOST_DATAGRAMS, "carried", "lost"),
        (0, "lost", "lost"),
        (layout.UP, "carried", "carried"),
    ):
        bed.translate(family, state=state)
        for back in (False, True):
            for protocol, reason in (("tcp", tcp_reason), ("udp", udp_reason)):
                came, _ = way(family, builder(family, protocol), back, VIP_PORT)
                assert bed.run(bed.frame(came)).counted == {reason: 1}
    stranger = V6 if family is V4 else V4
    bed.translate(stranger)
    came, _ = way(family, tcp(family), False, VIP_PORT)
    assert bed.run(bed.frame(came)).counted == {"no_flow": 1}
    bed.maps.translations.put(layout.INDEX.pack(FIRST), bytes(layout.TRANSLATION.size))
    assert bed.run(bed.frame(came)).counted == {"no_flow": 1}


@families
@protocols
def test_another_backend_may_not_send_in_a_flow(bed: Bed, family: Family, protocol: str) -> None:
    """A reply from a backend of the same VIP that the flow does not go to is none of the flow's;
    neither is one from another port of the right one.
    """
    bed.translate(family, index=FIRST, mapped=True)
    bed.translate(family, index=SECOND, mapped=True, backend=1)
    bed.origin(family, protocol, MAPPED_PORT, FIRST)
    bed.install(family, protocol, index=SECOND)
    reply, _ = way(family, builder(family, protocol), True, MAPPED_PORT)
    assert bed.run(bed.frame(reply, "priv")).counted == {"no_flow": 1}
    bed.clear()
    bed.prepare(family, protocol, mapped=True)
    assert bed.run(bed.frame(reply, "priv")).counted == {"carried": 1}
    bed.origin(family, protocol, MAPPED_PORT + 1)
    reply, _ = way(family, builder(family, protocol), True, MAPPED_PORT + 1)
    assert bed.run(bed.frame(reply, "priv")).counted == {"no_flow": 1}


@families
@protocols
def test_a_backend_may_be_a_client(bed: Bed, family: Family, protocol: str) -> None:
    """A packet from a backend's own end that is of no flow to it may be of one from it."""
    bed.prepare(family, protocol)
    bed.translate(family, index=SECOND, backend=1)
    backend, vip = family.backends[0], family.vip
    bed.install(family, protocol, backend, vip, (VIP_PORT, VIP_PORT), index=SECOND)
    build = builder(family, protocol)
    came = bytes(build(backend, vip, VIP_PORT, VIP_PORT, 64))
    ran = bed.run(bed.frame(came, "priv"))
    assert ran.counted == {"carried": 1}
    assert ran.packet == bytes(build(backend, family.backends[1], VIP_PORT, VIP_PORT, 63))


@families
def test_an_alias_without_its_flow(bed: Bed, family: Family) -> None:
    """An alias leads nowhere when the flow is gone, or when what it leads to is an alias itself."""
    bed.prepare(family, "tcp", flags=layout.ALIAS)
    reply, _ = way(family, tcp(family), True, VIP_PORT)
    request, _ = way(family, tcp(family), False, VIP_PORT)
    for packet in (reply, request):
        assert bed.run(bed.frame(packet)).counted == {"no_flow": 1}
    bed.clear()
    ends = (family.backends[0], family.client, (VIP_PORT, CLIENT_PORT))
    bed.install(family, "tcp", *ends, flags=layout.ALIAS)
    assert bed.run(bed.frame(reply)).counted == {"no_flow": 1}


@families
def test_no_route(bed: Bed, family: Family) -> None:
    """Without a route, or with one that refuses, the stack answers."""
    bed.prepare(family, "tcp")
    came, _ = way(family, tcp(family), False, VIP_PORT)
    backend = family.backends[0]
    for route in (f"blackhole {backend}", f"unreachable {backend}"):
        bed.namespace.ip(f"route add {route}")
        assert bed.run(bed.frame(came)).counted == {"no_route": 1}
        bed.namespace.ip(f"route del {route}")
    assert bed.run(bed.frame(came)).counted == {"carried": 1}


def test_three_capabilities_load_it() -> None:
    """A process that may use BPF, administer networks and trace (Linux 5.8) loads the programs."""
    capabilities = "-all,+bpf,+net_admin,+perfmon"
    limits = (f"--bounding-set={capabilities}", "--inh-caps=-all")
    code = (
        "from tests.bpf.carrying import OBJECT, PROGRAMS, CarrierMaps, load_programs\n"
        "load_programs(OBJECT.read_bytes(), PROGRAMS, CarrierMaps.create_for_test().numbers)\n"
        "print(open('/proc/self/status').read())"
    )
    command = ["setpriv", *limits, sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"CapEff:\t{1 << 12 | 1 << 38 | 1 << 39:016x}\n" in done.stdout

"""``forward: tunnel`` through the program: a packet leaves in an outer header, byte for byte as the
worker sends it.

Each frame passes the program in the kernel (BPF_PROG_TEST_RUN), whose routes are a namespace's.
"""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from paraglider.bpf import layout
from paraglider.core.encapsulation import OVERHEAD, Outer, count_down, flow_hash
from tests.bpf.carrying import (
    CLIENT_PORT,
    FIRST,
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
from tests.bpf.deciding import Deciding
from tests.core.packets import FAMILIES, SOME, V4, V6, Family, packed

pytestmark = pytest.mark.root

GUE = 6080
FLAGS = layout.ESTABLISHED | layout.DIRECT
#: our address on the route to the first backend
SOURCE = {4: "10.0.0.254", 6: "fd00:10::fe"}
ROUTER = {4: "10.0.0.77", 6: "fd00:10::77"}

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])
ports = pytest.mark.parametrize("port", [0, GUE], ids=["ipip", "gue"])


def prepare(bed: Bed, family: Family, protocol: str, port: int = 0, flags: int = FLAGS) -> None:
    """A flow of the client to the first backend."""
    bed.translate(family, method=layout.TUNNEL, outer_port=port)
    bed.install(family, protocol, flags=flags)


def request(family: Family, build: Build, ttl: int = 64) -> bytes:
    """A packet of the client to the VIP."""
    return bytes(build(family.client, family.vip, CLIENT_PORT, VIP_PORT, ttl))


def wrapped(family: Family, packet: bytes, port: int, source: str = "", backend: int = 0) -> bytes:
    """``packet`` as a worker sends it to a backend."""
    ends = (packed(source or SOURCE[family.number]), packed(family.backends[backend]))
    inner = bytearray(packet)
    assert count_down(inner)
    return Outer(*ends, port).wrap(inner, flow_hash(packet))


@families
@protocols
@ports
def test_a_packet_leaves_in_an_outer_header(
    bed: Bed, family: Family, protocol: str, port: int
) -> None:
    """The packet inside has one hop less and is else as it came, its checksum too, right or wrong;
    the sum that a device has computed is right, which the kernel compares. Flow and translation
    count the packet inside.
    """
    prepare(bed, family, protocol, port)
    before, total = bed.traffic(), 0
    for data in (b"", b"even", b"an odd number"):
        came = request(family, builder(family, protocol, data))
        ran = bed.run(bed.frame(came), summed=True)
        assert (ran.carried, ran.counted) == (True, {"carried": 1})
        assert ran.packet == wrapped(family, came, port)
        total += len(came)
    assert [now - then for now, then in zip(bed.traffic(), before, strict=True)] == [3, total, 0, 0]
    entry = bed.entry(family, protocol)
    assert (entry.packets_out, entry.packets_back, entry.flags) == (3, 0, FLAGS)
    for checksum in (0xFFFF, 0x1234) if family is V6 and protocol == "udp" else (0, 0xFFFF, 0x1234):
        tcp_or_udp = (
            tcp(family, chksum=checksum) if protocol == "tcp" else udp(family, b"", checksum)
        )
        came = request(family, tcp_or_udp)
        ran = bed.run(bed.frame(came))
        assert (ran.carried, ran.packet) == (True, wrapped(family, came, port))


@families
@ports
def test_a_reader_of_another_kind_agrees(bed: Bed, family: Family, port: int) -> None:
    """scapy reads the headers, and computes the same checksum."""
    prepare(bed, family, "tcp", port)
    came = request(family, tcp(family, data=b"hello"))
    outer = (IP if family is V4 else IPv6)(bed.run(bed.frame(came)).packet)
    assert (outer.src, outer.dst) == (SOURCE[family.number], family.backends[0])
    if family is V4:
        again = outer.copy()
        del again.chksum
        assert outer.chksum == IP(bytes(again)).chksum
        assert (outer.ttl, str(outer.flags), outer.id) == (64, "DF", 0)
    else:
        assert outer.hlim == 64
        assert outer.fl != 0
    if port:
        assert (outer[UDP].dport, outer[UDP].chksum) == (GUE, 0)
        assert outer[UDP].sport >= 0xC000
    inner = bytes(outer)[-len(came) + 20 if family is V4 else -len(came) + 40 :]
    assert inner == came[20 if family is V4 else 40 :]


@families
def test_every_ttl(bed: Bed, family: Family) -> None:
    """The checksum of the header inside is right for each; at its end it is the worker's."""
    prepare(bed, family, "udp")
    for ttl in range(256):
        came = request(family, udp(family, b"?"), ttl)
        ran = bed.run(bed.frame(came))
        if ttl > 1:
            assert (ran.carried, ran.packet) == (True, wrapped(family, came, 0))
        else:
            assert (ran.counted, ran.packet) == ({"ttl": 1}, came)


@families
@protocols
@ports
def test_the_longest_packet_that_fits(bed: Bed, family: Family, protocol: str, port: int) -> None:
    """With its outer header the link takes it; the worker answers or fragments others. A GSO packet
    fits if each of its segments does; one that the kernel cannot split is the worker's.
    """
    prepare(bed, family, protocol, port)
    head = (20 if family.number == 4 else 40) + (32 if protocol == "tcp" else 8)
    room = MTU - OVERHEAD[family.number][bool(port)]
    for length, reason in ((room, "carried"), (room + 1, "too_big")):
        packet = request(family, builder(family, protocol, bytes(length - head)))
        ran = bed.run(bed.frame(packet))
        assert ran.counted == {reason: 1}
        assert ran.packet == (wrapped(family, packet, port) if ran.carried else packet)
    # A test run does not say of what kind a GSO packet is, so the kernel refuses the outer header.
    long = request(family, builder(family, protocol, bytes(2 * (room - head))))
    for size, reason in ((room - head, "no_headroom"), (room - head + 1, "too_big")):
        ran = bed.run(bed.frame(long), segment=size, segments=2)
        assert (ran.counted, ran.packet) == ({reason: 1}, long)


@families
@ports
def test_a_narrow_path(bed: Bed, family: Family, port: int) -> None:
    """The MTU that the kernel has for the route counts, not that of the link alone."""
    prepare(bed, family, "tcp", port)
    backend, room = family.backends[0], 1400 - OVERHEAD[family.number][bool(port)]
    head = (20 if family.number == 4 else 40) + 32
    bed.namespace.ip(f"route add {backend} via {ROUTER[family.number]} mtu lock 1400")
    try:
        for length, reason in ((room, "carried"), (room + 1, "too_big")):
            packet = request(family, tcp(family, data=bytes(length - head)))
            assert bed.run(bed.frame(packet)).counted == {reason: 1}
    finally:
        bed.namespace.ip(f"route del {backend} via {ROUTER[family.number]}")


@families
@ports
def test_a_backend_behind_a_router(bed: Bed, family: Family, port: int) -> None:
    """The outer header is routed; it has the source address that the route prefers."""
    prepare(bed, family, "tcp", port)
    came, backend = request(family, tcp(family)), family.backends[0]
    other = {4: "192.168.0.1", 6: "2001:db8::1"}[family.number]
    for source in ("", other):
        prefers = f" src {source}" if source else ""
        bed.namespace.ip(f"route add {backend} via {ROUTER[family.number]}{prefers}")
        try:
            ran = bed.run(bed.frame(came))
        finally:
            bed.namespace.ip(f"route del {backend} via {ROUTER[family.number]}")
        assert ran.carried
        assert ran.packet == wrapped(family, came, port, source)


@families
def test_without_a_route(bed: Bed, family: Family) -> None:
    """The worker counts that packet as unsent."""
    prepare(bed, family, "tcp")
    came = request(family, tcp(family))
    bed.namespace.ip(f"route add unreachable {family.backends[0]}")
    try:
        ran = bed.run(bed.frame(came))
    finally:
        bed.namespace.ip(f"route del unreachable {family.backends[0]}")
    assert (ran.counted, ran.packet) == ({"no_route": 1}, came)


@families
@ports
def test_what_begins_or_ends_a_flow_is_the_workers(bed: Bed, family: Family, port: int) -> None:
    """SYN and RST, as of dsr."""
    prepare(bed, family, "tcp", port)
    for flags, reason in (("S", "syn"), ("RA", "rst"), ("R", "rst")):
        came = request(family, tcp(family, flags))
        ran = bed.run(bed.frame(came))
        assert (ran.counted, ran.packet) == ({reason: 1}, came)


@families
@protocols
def test_a_lost_backend(bed: Bed, family: Family, protocol: str) -> None:
    """Its flows are the worker's with one write."""
    prepare(bed, family, protocol)
    bed.translate(family, method=layout.TUNNEL, state=layout.LOST_FLOWS)
    came = request(family, builder(family, protocol))
    assert bed.run(bed.frame(came)).counted == {"lost": 1}


@families
@ports
@pytest.mark.parametrize("kind", ["flow", "client"])
def test_by_hash_alone(bed: Bed, family: Family, kind: str, port: int) -> None:
    """Where the program decides by a hash, every packet of a client goes to the same backend, from
    the first to the last, without an entry; a flow that a worker has installed stays where it is.
    """
    with closing(Deciding(bed)) as deciding:
        deciding.decide(family, kind, flags=layout.DIRECT | layout.NO_ENTRIES)
        for index, backend in ((FIRST, 0), (SECOND, 1)):
            bed.translate(
                family, method=layout.TUNNEL, index=index, backend=backend, outer_port=port
            )
        before = bed.traffic(FIRST)[0]
        steps = ("> S", "> A", "> PA", "> FA", "> R", "> RA", "> udp")
        assert deciding.reasons(family, *steps) == ["stateless"] * len(steps)
        assert bed.traffic(FIRST)[0] - before == len(steps)
        assert (deciding.flows(), bed.events()) == (0, [])
        came = request(family, tcp(family, "S"))
        assert bed.run(bed.frame(came)).packet == wrapped(family, came, port)
        bed.install(family, "tcp", flags=FLAGS, index=SECOND)
        came = request(family, tcp(family))
        assert bed.run(bed.frame(came)).packet == wrapped(family, came, port, backend=1)
        bed.clear()
        bed.translate(family, method=layout.TUNNEL, state=layout.LOST_FLOWS)
        assert deciding.reasons(family, "> S", "> A") == ["no_backend"] * 2


@st.composite
def packets(draw: st.DrawFn) -> tuple[Family, str, int, bytes]:
    """A plain packet of the client: family, protocol, UDP port of the outer header, bytes."""
    family = draw(st.sampled_from(FAMILIES))
    protocol = draw(st.sampled_from(["tcp", "udp"]))
    byte, short = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
    fields: dict[str, object] = {"tc": draw(byte), "fl": draw(st.integers(0, 0xFFFFF))}
    if family is V4:
        fields = {"tos": draw(byte), "id": draw(short), "flags": draw(st.sampled_from(["", "DF"]))}
    ends = {"sport": CLIENT_PORT, "dport": VIP_PORT}
    if protocol == "udp":
        header = UDP(**ends, chksum=draw(st.none() | st.integers(1, 0xFFFF)))
    else:
        options = draw(st.sampled_from([[], [("Timestamp", (7, 9))], [("NOP", None)] * 40]))
        header = TCP(**ends, flags="A", seq=draw(short), options=options, chksum=draw(short))
    head = ip(family, family.client, family.vip, draw(st.integers(2, 255)), **fields)
    data = Raw(draw(st.binary(max_size=200)))
    return family, protocol, draw(st.integers(0, 0xFFFF)), bytes(head / header / data)


@SOME
@given(drawn=packets(), client_port=st.integers(1, 0xFFFF))
def test_the_program_does_as_the_worker(
    module_bed: Bed, drawn: tuple[Family, str, int, bytes], client_port: int
) -> None:
    """Every plain packet leaves either with the same bytes."""
    family, protocol, port, packet = drawn
    at = 20 if family is V4 else 40
    packet = packet[:at] + client_port.to_bytes(2, "big") + packet[at + 2 :]
    module_bed.clear()
    module_bed.translate(family, method=layout.TUNNEL, outer_port=port)
    module_bed.install(family, protocol, ports=(client_port, VIP_PORT), flags=FLAGS)
    ran = module_bed.run(module_bed.frame(packet), summed=True)
    assert ran.counted == {"carried": 1}
    assert ran.packet == wrapped(family, packet, port)

"""``forward: dsr`` through the program: the packet stays as it is, and goes to its backend's MAC.

Each frame passes the program in the kernel (BPF_PROG_TEST_RUN), whose routes are a namespace's.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from paraglider.bpf import layout
from tests.bpf.carrying import (
    CLIENT_PORT,
    FIRST,
    MTU,
    SECOND,
    VIP_PORT,
    Bed,
    Build,
    builder,
    tcp,
    udp,
)
from tests.bpf.deciding import Deciding
from tests.core.packets import FAMILIES, V4, V6, Family

pytestmark = pytest.mark.root

families = pytest.mark.parametrize("family", FAMILIES, ids=("v4", "v6"))
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])

FLAGS = layout.ESTABLISHED | layout.DIRECT


def prepare(bed: Bed, family: Family, protocol: str, flags: int = FLAGS) -> None:
    """A flow of the client to the first backend."""
    bed.translate(family, method=layout.DSR)
    bed.install(family, protocol, flags=flags)


def request(family: Family, build: Build, ttl: int = 64) -> bytes:
    """A packet of the client to the VIP."""
    return bytes(build(family.client, family.vip, CLIENT_PORT, VIP_PORT, ttl))


@families
@protocols
def test_a_packet_stays_but_for_its_ttl(bed: Bed, family: Family, protocol: str) -> None:
    """It has one hop less, as behind any router, and is else as it came, its checksum too, right
    or wrong; the sum that a device has computed is right, which the kernel compares. Flow and
    translation count it.
    """
    prepare(bed, family, protocol)
    before, total = bed.traffic(), 0
    for data in (b"", b"even", b"an odd number"):
        build = builder(family, protocol, data)
        ran = bed.run(bed.frame(request(family, build)), summed=True)
        assert (ran.carried, ran.counted) == (True, {"carried": 1})
        assert ran.packet == request(family, build, ttl=63)
        total += len(ran.packet)
    assert [now - then for now, then in zip(bed.traffic(), before, strict=True)] == [3, total, 0, 0]
    entry = bed.entry(family, protocol)
    assert (entry.packets_out, entry.packets_back, entry.flags) == (3, 0, FLAGS)
    assert entry.seen > 0
    for checksum in (0, 0xFFFF, 0x1234):
        if protocol == "tcp":
            build = tcp(family, chksum=checksum)
        elif checksum or family is V4:
            build = udp(family, checksum=checksum)
        ran = bed.run(bed.frame(request(family, build)))
        assert (ran.carried, ran.packet) == (True, request(family, build, ttl=63))


@families
def test_every_ttl(bed: Bed, family: Family) -> None:
    """The header's checksum is right for each; at its end the packet is the stack's."""
    prepare(bed, family, "udp")
    for ttl in range(256):
        came = request(family, udp(family, b"?"), ttl)
        ran = bed.run(bed.frame(came))
        if ttl > 1:
            assert (ran.carried, ran.packet) == (True, request(family, udp(family, b"?"), ttl - 1))
        else:
            assert (ran.counted, ran.packet) == ({"ttl": 1}, came)


@families
def test_what_begins_or_ends_a_flow_is_the_workers(bed: Bed, family: Family) -> None:
    """SYN and RST, and a FIN of a client that nft may not know; the worker reads the client's last
    sequence number in the entry.
    """
    unknown = {4: "192.168.6.6", 6: "2001:db8:66::1"}[family.number]
    family = replace(family, client=unknown)
    prepare(bed, family, "tcp")
    for flags, reason in (("S", "syn"), ("RA", "rst"), ("R", "rst"), ("FA", "unknown_client")):
        came = request(family, tcp(family, flags))
        ran = bed.run(bed.frame(came))
        assert (ran.counted, ran.packet) == ({reason: 1}, came)
    for number in (1000, 1400):
        assert bed.run(bed.frame(request(family, tcp(family, seq=number)))).carried
        assert bed.entry(family, "tcp").ack == number
    assert bed.run(bed.frame(request(family, tcp(family, "FA", seq=1500)))).carried
    assert bed.entry(family, "tcp").flags == FLAGS | layout.FIN_OUT


@families
@protocols
def test_a_lost_backend(bed: Bed, family: Family, protocol: str) -> None:
    """Its flows are the worker's with one write."""
    prepare(bed, family, protocol)
    bed.translate(family, method=layout.DSR, state=layout.LOST_FLOWS)
    came = request(family, builder(family, protocol))
    assert bed.run(bed.frame(came)).counted == {"lost": 1}


@families
@protocols
def test_the_longest_packet_of_the_link(bed: Bed, family: Family, protocol: str) -> None:
    """What fits is carried; the stack answers or fragments the rest."""
    prepare(bed, family, protocol)
    head = (20 if family.number == 4 else 40) + (32 if protocol == "tcp" else 8)
    for length, reason in ((MTU, "carried"), (MTU + 1, "too_big")):
        packet = request(family, builder(family, protocol, bytes(length - head)))
        assert bed.run(bed.frame(packet)).counted == {reason: 1}
    long = request(family, builder(family, protocol, bytes(2 * (MTU - head))))
    for size, reason in ((MTU - head, "carried"), (MTU - head + 1, "too_big")):
        ran = bed.run(bed.frame(long), segment=size, segments=2)
        assert ran.counted == {reason: 1}


@families
def test_a_backend_behind_a_router(bed: Bed, family: Family) -> None:
    """It cannot be reached by its MAC address, and a router would send the VIP's packets back."""
    prepare(bed, family, "tcp")
    came = request(family, tcp(family))
    backend = family.backends[0]
    router = {4: "10.0.0.77", 6: "fd00:10::77"}[family.number]
    bed.namespace.ip(f"route add {backend} via {router}")
    ran = bed.run(bed.frame(came))
    bed.namespace.ip(f"route del {backend} via {router}")
    assert (ran.counted, ran.packet) == ({"no_route": 1}, came)
    assert bed.run(bed.frame(came)).carried


def test_udp_without_checksum(bed: Bed) -> None:
    """Over IPv4 it stays without; over IPv6 there is no such datagram."""
    for family, counted in ((V4, {"carried": 1}), (V6, {"no_checksum": 1})):
        prepare(bed, family, "udp")
        ran = bed.run(bed.frame(request(family, udp(family, b"query", checksum=0))), summed=True)
        assert ran.counted == counted


@families
def test_answers_are_of_no_flow(bed: Bed, family: Family) -> None:
    """Those of a backend leave as the VIP and past this host; one that comes here all the same is
    the stack's.
    """
    prepare(bed, family, "tcp")
    for source in (family.vip, family.backends[0]):
        came = bytes(tcp(family)(source, family.client, VIP_PORT, CLIENT_PORT, 64))
        assert bed.run(bed.frame(came, "priv")).counted == {"no_flow": 1}


@families
@pytest.mark.parametrize("kind", ["flow", "client"])
def test_by_hash_alone(bed: Bed, family: Family, kind: str) -> None:
    """Where the program decides by a hash, every packet of a client goes to the same backend, from
    the first to the last, without an entry; a flow that a worker has installed stays where it is.
    """
    with closing(Deciding(bed)) as deciding:
        deciding.decide(family, kind, flags=layout.DIRECT | layout.NO_ENTRIES)
        for index, backend in ((FIRST, 0), (SECOND, 1)):
            bed.translate(family, method=layout.DSR, index=index, backend=backend)
        before = bed.traffic(FIRST)[0]
        steps = ("> S", "> A", "> PA", "> FA", "> R", "> RA", "> udp")
        assert deciding.reasons(family, *steps) == [bed.stateless] * len(steps)
        assert bed.traffic(FIRST)[0] - before == len(steps)
        assert deciding.flows() == 0
        assert bed.events() == []
        came = request(family, tcp(family, "S"))
        assert bed.run(bed.frame(came)).packet == request(family, tcp(family, "S"), ttl=63)
        bed.install(family, "tcp", flags=FLAGS, index=SECOND)
        before = bed.traffic(SECOND)[0]
        assert deciding.reasons(family, "> A", "> S") == ["carried", "syn"]
        assert bed.traffic(SECOND)[0] - before == 1
        bed.clear()
        bed.translate(family, method=layout.DSR, state=layout.LOST_FLOWS)
        assert deciding.reasons(family, "> S", "> A") == ["no_backend"] * 2

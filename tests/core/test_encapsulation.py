"""Outer headers: their bytes as a table, their fields and checksums as scapy reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import FAMILIES, SOME, V4, V6, Family, packed
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from paraglider.core.encapsulation import IPIP, IPV6, OVERHEAD, Outer, count_down, flow_hash

SOURCE = {4: "10.9.0.254", 6: "fd00:9::fe"}
LAYER = {4: IP, 6: IPv6}
families = pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
PORTS = pytest.mark.parametrize("port", [0, 6080], ids=["ipip", "gue"])


def outer(family: Family, port: int = 0) -> Outer:
    """The way from the balancer to the first backend."""
    return Outer(packed(SOURCE[family.number]), packed(family.backends[0]), port)


ENDS4 = "0a0900fe 0a000001"
ENDS6 = "fd0000090000000000000000000000fe fd000010000000000000000000000001"


@pytest.mark.parametrize(
    ("family", "port", "wanted"),
    [
        (V4, 0, f"45000035 00004000 4004 25be {ENDS4}"),
        (V4, 6080, f"45000041 00004000 4011 25a5 {ENDS4} cabc 17c0 002d 0000 00040000"),
        (V6, 0, f"600f0abc 0035 29 40 {ENDS6}"),
        (V6, 6080, f"600f0abc 0041 11 40 {ENDS6} cabc 17c0 0041 0000 00290000"),
    ],
)
def test_the_bytes(family: Family, port: int, wanted: str) -> None:
    """The headers in front of a packet, byte by byte."""
    inner = bytes(family.ip(family.client, family.vip) / UDP(sport=1, dport=2) / b"hello")
    made = outer(family, port).wrap(inner, 0x00FF0ABC)
    assert made.endswith(inner)
    assert made[: -len(inner)].hex() == wanted.replace(" ", "")


@PORTS
@families
@given(service=st.integers(0, 255), size=st.integers(0, 1400), entropy=st.integers(0, 2**32 - 1))
@SOME
def test_scapy_reads_them(family: Family, port: int, service: int, size: int, entropy: int) -> None:
    """Lengths, checksum, DSCP and ECN, DF, hops, ports and the packet inside are right."""
    name = "tos" if family is V4 else "tc"
    ip = family.ip(family.client, family.vip, **{name: service})
    inner = bytes(ip / UDP(sport=40000, dport=53) / bytes(size))
    made = outer(family, port).wrap(inner, entropy)
    assert len(made) == len(inner) + OVERHEAD[family.number][bool(port)]
    ip = LAYER[family.number](made)
    assert (ip.src, ip.dst) == (SOURCE[family.number], family.backends[0])
    if family is V4:
        again = ip.copy()
        del again.chksum
        assert ip.chksum == IP(bytes(again)).chksum
        assert (ip.len, ip.tos, str(ip.flags), ip.frag, ip.ttl) == (len(made), service, "DF", 0, 64)
        head, kind, after = 20, ip.proto, IPIP
    else:
        assert (ip.plen, ip.tc, ip.hlim) == (len(made) - 40, service, 64)
        assert ip.fl == (entropy & 0xFFFFF or 1)
        head, kind, after = 40, ip.nh, IPV6
    if not port:
        assert kind == after
        assert made[head:] == inner
        return
    assert kind == 17
    udp = UDP(made[head:])
    assert (udp.dport, udp.len, udp.chksum) == (port, len(made) - head, 0)
    assert udp.sport >= 0xC000
    assert made[head + 8 : head + 12] == bytes([0, after, 0, 0])
    assert made[head + 12 :] == inner


@families
def test_the_hash_is_of_the_flow(family: Family) -> None:
    """It is one for all packets of a flow, and another for another port of the client."""
    hashes = {flow_hash(family.segment(flags, client_port=40000)) for flags in ("S", "A", "FA")}
    assert len(hashes) == 1
    assert flow_hash(family.segment("S", client_port=40001)) not in hashes
    echo = family.echo(family.client, family.vip, reply=False, identifier=7)
    other = family.echo(family.client, family.vip, reply=False, identifier=8)
    assert flow_hash(bytes(echo)) == flow_hash(bytes(other))


def test_options_are_no_ports() -> None:
    """An IPv4 header with options has its ports elsewhere: the addresses count alone."""
    found = {
        flow_hash(bytes(IP(src=V4.client, dst=V4.vip, options=option) / TCP(sport=port)))
        for option, port in (([("NOP")] * 4, 1), ([("NOP")] * 4, 2))
    }
    assert len(found) == 1


@families
@pytest.mark.parametrize(("before", "after"), [(255, 254), (64, 63), (2, 1), (1, 1), (0, 0)])
def test_hops_are_counted_down(family: Family, before: int, after: int) -> None:
    """By one, with the header's checksum; a packet at its end stays as it is."""
    name = "ttl" if family is V4 else "hlim"
    packet = bytearray(bytes(family.ip(family.client, family.vip, **{name: before}) / TCP()))
    assert count_down(packet) == (before != after)
    wanted = bytes(family.ip(family.client, family.vip, **{name: after}) / TCP())
    assert packet == wanted


@given(identification=st.integers(0, 65535), ttl=st.integers(2, 255))
@SOME
def test_the_checksum_of_every_header(identification: int, ttl: int) -> None:
    """Counting down keeps it right, whatever it was."""
    packet = bytearray(bytes(IP(src=V4.client, dst=V4.vip, id=identification, ttl=ttl) / TCP()))
    assert count_down(packet)
    wanted = bytes(IP(src=V4.client, dst=V4.vip, id=identification, ttl=ttl - 1) / TCP())
    assert packet == wanted

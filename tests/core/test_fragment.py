"""Fragments, put together again by scapy or by hand, are the packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import SOME, V4, V6
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert, IPOption_RR, defragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    defragment6,
)

from paraglider.core.fragment import fragments4, fragments6

sizes = given(size=st.integers(1500, 9000), mtu=st.integers(576, 1480))


def data(size: int) -> bytes:
    """Bytes that differ from place to place."""
    return bytes(i * 7 % 251 for i in range(size))


@sizes
@SOME
def test_ipv4(size: int, mtu: int) -> None:
    """Each fits, has a right checksum and the packet's identification; together they are whole."""
    packet = bytes(IP(src=V4.client, dst=V4.vip, id=77, tos=3) / UDP(dport=53) / data(size))
    pieces = [IP(bytes(piece)) for piece in fragments4(packet, mtu)]
    for piece in pieces:
        assert piece.len == len(bytes(piece)) <= mtu
        assert (piece.id, piece.tos) == (77, 3)
        again = piece.copy()
        del again.chksum
        assert IP(bytes(again)).chksum == piece.chksum
    (whole,) = defragment(pieces)
    del whole.chksum, whole.len
    assert bytes(whole) == packet


def test_ipv4_options() -> None:
    """Only options with the copied bit are in later fragments; the others are no-operations."""
    options = [IPOption_RR(routers=["1.2.3.4"]), IPOption_Router_Alert()]
    packet = bytes(IP(src=V4.client, dst=V4.vip, options=options) / UDP() / data(3000))
    first, *others = fragments4(packet, 1000)
    size = (packet[0] & 15) * 4
    assert first[20:size] == packet[20:size]
    alert = bytes(IPOption_Router_Alert())
    for piece in others:
        assert piece[20 : 20 + 7] == b"\x01" * 7
        assert piece[27 : 27 + len(alert)] == alert
    assert b"".join(bytes(p[size:]) for p in (first, *others)) == packet[size:]


@pytest.mark.parametrize("option", [b"\x07\x00\x01\x01", b"\x07\x28\x01\x01", b"\x01\x01\x01\x07"])
def test_malformed_ipv4_options(option: bytes) -> None:
    """They are kept; nothing raises."""
    head = bytearray(bytes(IP(src=V4.client, dst=V4.vip) / UDP() / data(1400)))
    packet = bytes([0x46]) + bytes(head[1:20]) + option + bytes(head[20:])
    assert all(b"\x07" in piece[20:24] for piece in fragments4(packet, 600))


@sizes
@SOME
def test_ipv6(size: int, mtu: int) -> None:
    """Each fits; together they are the packet."""
    packet = bytes(IPv6(src=V6.client, dst=V6.vip, tc=9) / UDP(dport=53) / data(size))
    pieces = [IPv6(bytes(piece)) for piece in fragments6(packet, mtu, 0xABCD1234)]
    for piece in pieces:
        assert piece.plen + 40 == len(bytes(piece)) <= mtu
        assert (piece[IPv6ExtHdrFragment].id, piece.tc) == (0xABCD1234, 9)
    whole = defragment6(pieces)
    assert bytes(whole) == packet


@pytest.mark.parametrize("units", [14, 15, 16, 40])
def test_ipv6_headers_that_do_not_fit(units: int) -> None:
    """Where no data would fit beside the headers that each fragment repeats, there is none."""
    options = bytes([17, units - 1]) + b"\x01\x04" + bytes(4) + b"\x00" * (units * 8 - 8)
    packet = bytes(IPv6(src=V6.client, dst=V6.vip, nh=0) / options / bytes(UDP() / data(300)))
    pieces = fragments6(packet, 40 + 14 * 8 + 8 + 8, 1)
    assert bool(pieces) == (units == 14)


def test_ipv6_extension_headers() -> None:
    """Hop-by-hop options are in every fragment, destination options behind them in the first."""
    ip = IPv6(src=V6.client, dst=V6.vip)
    packet = bytes(ip / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(dport=53) / data(3000))
    pieces = [IPv6(bytes(piece)) for piece in fragments6(packet, 1280, 5)]
    assert all(piece.nh == 0 for piece in pieces)
    fragments = [piece[IPv6ExtHdrFragment] for piece in pieces]
    assert {each.nh for each in fragments} == {60}
    body = b"".join(bytes(each)[8:] for each in fragments)
    assert body == packet[48:]

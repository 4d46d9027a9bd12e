"""The bytes of the PROXY protocol, as the specification writes them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.forward.proxy.header import header


def key(client: str, vip: str, client_port: int, port: int) -> bytes:
    """A flow key."""
    packed = ipaddress.ip_address(client).packed + ipaddress.ip_address(vip).packed
    return packed + client_port.to_bytes(2, "big") + port.to_bytes(2, "big")


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        (
            ("192.168.0.1", "192.168.0.11", 56324, 443),
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",  # the example of §2.1
        ),
        (
            ("255.255.255.255", "255.255.255.255", 65535, 65535),
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ),
        (("2001:db8::1", "fd00::11", 1, 80), b"PROXY TCP6 2001:db8::1 fd00::11 1 80\r\n"),
    ],
)
def test_version_1(ends: tuple[str, str, int, int], line: bytes) -> None:
    """One line of text: family, both addresses, both ports, as in §2.1."""
    assert header("v1", key(*ends)) == line


def test_the_longest_line_of_version_1() -> None:
    """It is at most 107 bytes, which §2.1 allows a receiver to expect."""
    longest = "ffff:f000:f000:f000:f000:f000:f000:f000"
    assert len(header("v1", key(longest, longest, 65535, 65535))) <= 107


def test_version_2_over_ipv4() -> None:
    """Signature, PROXY command, TCP over IPv4, 12 bytes of addresses and ports (§2.2)."""
    expected = bytes.fromhex(
        "0d0a0d0a000d0a515549540a"  # the signature
        "21 11 000c"  # version 2 and PROXY, AF_INET and STREAM, length
        "c0a80001 c0a8000b dc04 01bb"
    )
    assert header("v2", key("192.168.0.1", "192.168.0.11", 56324, 443)) == expected


def test_version_2_over_ipv6() -> None:
    """Signature, PROXY command, TCP over IPv6, 36 bytes of addresses and ports (§2.2)."""
    expected = bytes.fromhex(
        "0d0a0d0a000d0a515549540a"
        "21 21 0024"
        "20010db8000000000000000000000001 fd000000000000000000000000000011 0001 0050"
    )
    assert header("v2", key("2001:db8::1", "fd00::11", 1, 80)) == expected


@given(st.one_of(st.binary(min_size=12, max_size=12), st.binary(min_size=36, max_size=36)))
def test_both_versions_agree(bytes_of_key: bytes) -> None:
    """For any addresses, version 1 as text and version 2 in binary have the same content."""
    words = header("v1", bytes_of_key).decode("ascii").rstrip("\r\n").split(" ")
    told = key(words[2], words[3], int(words[4]), int(words[5]))
    assert told == header("v2", bytes_of_key)[16:]

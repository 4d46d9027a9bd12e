"""Tests of ``paraglider.config.types``: parsing, errors and text of each type."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.types import (
    ALL_PORTS,
    PortRange,
    StatusRange,
    parse_address,
    parse_exempt,
    parse_interface,
    parse_pattern,
    parse_port,
    parse_port_range,
    parse_ports,
    parse_statuses,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (80, [(80, 80)]),
        ("80", [(80, 80)]),
        ("8000-8099", [(8000, 8099)]),
        (" 8000 - 8099 ", [(8000, 8099)]),
        ([443, 80], [(80, 80), (443, 443)]),
        ([80, "8000-8099"], [(80, 80), (8000, 8099)]),
        ("1-65535", [(1, 65535)]),
    ],
)
def test_ports_read(value: Any, expected: list[tuple[int, int]]) -> None:
    """A port, a range and a list of both become sorted ranges."""
    assert parse_ports(value) == tuple(PortRange(*pair) for pair in expected)


@pytest.mark.parametrize(
    ("parse", "value", "words"),
    [
        (parse_port, 0, "port 0 is out of range; write a number from 1 to 65535"),
        (parse_port, 65536, "port 65536 is out of range"),
        (parse_port, True, "the truth value true is no port number"),
        (parse_port, None, "an empty value is no port number"),
        (parse_port, "8080", "'8080' is no port number; write 8080 without quotes"),
        (parse_port, "http", "'http' is no port number; write a number from 1 to 65535"),
        (parse_port, 80.0, "80.0 is no port number"),
        (parse_port, {"a": 1}, "a section is no port number"),
        (parse_port_range, "90-80", "range '90-80' runs backwards; write \"80-90\""),
        (parse_port_range, "80-", "'80-' is no port or range; write 80 or \"8000-8099\""),
        (parse_port_range, "٣", "is no port or range"),
        (parse_port_range, "0-80", "port 0 is out of range"),
        (parse_port_range, "1-99999", "port 99999 is out of range"),
        (parse_ports, [], "the list of ports is empty"),
        (parse_ports, [80, "79-81"], "ports 79-81 and 80 overlap; name each port once"),
        (parse_ports, [80, 80], "ports 80 and 80 overlap"),
        (parse_address, "10.0.0.1/8", "leave the prefix out: 10.0.0.1"),
        (parse_address, "10.0.0.1:80", "leave the port out: 10.0.0.1"),
        (parse_address, "2001:db8::1%eth0", "leave the zone out: 2001:db8::1"),
        (parse_address, "web1", "'web1' is no IP address; write an IPv4 or IPv6 address"),
        (parse_address, 167772161, "167772161 is no IP address"),
        (parse_address, "10.0.0.256", "'10.0.0.256' is no IP address"),
        (parse_interface, "10.0.0.1/33", "write one such as 192.168.0.11/24 or 2001:db8::11/64"),
        (parse_interface, 5, "5 is no address with a prefix"),
        (parse_interface, "fe80::1%eth0/64", "is no address with a prefix"),
        (parse_exempt, "10.0.0.1:53/sctp", "'sctp' is no protocol of an exempt endpoint"),
        (parse_exempt, "10.0.0.1:99999", "port 99999 is out of range"),
        (parse_exempt, "2001:db8::1]:53", "is no endpoint; write"),
        (parse_exempt, 53, "53 is no endpoint; write"),
    ],
)
def test_refused_with_a_remedy(parse: Callable[[Any], Any], value: Any, words: str) -> None:
    """Each refused value has a reason and a remedy."""
    with pytest.raises(ValueError, match="; ") as caught:
        parse(value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "address", "port", "protocol"),
    [
        ("192.168.0.1:53/udp", "192.168.0.1", 53, "udp"),
        ("192.168.0.1", "192.168.0.1", None, None),
        ("192.168.0.1/tcp", "192.168.0.1", None, "tcp"),
        ("2001:db8::1", "2001:db8::1", None, None),
        ("[2001:db8::1]:53/udp", "2001:db8::1", 53, "udp"),
    ],
)
def test_exempt_endpoint_reads_and_prints(
    text: str, address: str, port: int | None, protocol: str | None
) -> None:
    """An exempt endpoint reads in every form, and prints as it was written."""
    exempt = parse_exempt(text)
    assert (str(exempt.address), exempt.port, exempt.protocol) == (address, port, protocol)
    assert str(exempt) == text


def test_address_and_interface_keep_their_family() -> None:
    """Addresses of both families become the standard library's objects."""
    assert parse_address("fd00:10::1") == ipaddress.ip_address("fd00:10::1")
    assert parse_interface("192.168.0.11/24") == ipaddress.ip_interface("192.168.0.11/24")
    assert parse_interface("192.168.0.11").network.prefixlen == 32


@given(st.tuples(*[st.integers(1, 65535)] * 4))
def test_overlap_is_a_shared_port(ends: tuple[int, int, int, int]) -> None:
    """Two ranges overlap exactly when the later start lies in both."""
    left = PortRange(min(ends[:2]), max(ends[:2]))
    right = PortRange(min(ends[2:]), max(ends[2:]))
    start = max(left.first, right.first)
    assert left.overlaps(right) == (start in left and start in right)
    assert right.overlaps(left) == left.overlaps(right)


def test_range_counts_and_prints() -> None:
    """A range has a length, and its text is that of the file."""
    assert (str(PortRange(80, 80)), str(PortRange(1, 9))) == ("80", "1-9")
    assert (len(PortRange(1, 9)), len(ALL_PORTS)) == (9, 65535)
    assert "80" not in ALL_PORTS


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        (200, [(200, 200)]),
        ("204", [(204, 204)]),
        ("200-399", [(200, 399)]),
        ([503, "200 - 299"], [(503, 503), (200, 299)]),
    ],
)
def test_statuses(value: Any, ranges: list[tuple[int, int]]) -> None:
    """One status, a range, or a list of these; inclusive at both ends."""
    parsed = parse_statuses(value)
    assert parsed == tuple(StatusRange(*pair) for pair in ranges)
    for found, (first, last) in zip(parsed, ranges, strict=True):
        assert first in found
        assert last in found
        assert last + 1 not in found
    assert parse_statuses(parsed) is parsed


@pytest.mark.parametrize("value", [99, 600, True, None, [], "2xx", "399-200", "200-", 200.0])
def test_wrong_statuses(value: Any) -> None:
    """Anything else is refused with the remedy."""
    with pytest.raises(ValueError, match="; "):
        parse_statuses(value)


def test_statuses_print_as_they_are_written() -> None:
    """A range in a message looks as in the file."""
    assert [str(part) for part in parse_statuses([200, "300-399"])] == ["200", "300-399"]


def test_pattern() -> None:
    """A regular expression stays the text it is; one that does not compile is refused."""
    assert parse_pattern(r"^ok \d+$") == r"^ok \d+$"
    for value in ("(", "a**", 5, None, "x" * 1001):
        with pytest.raises(ValueError, match="; "):
            parse_pattern(value)

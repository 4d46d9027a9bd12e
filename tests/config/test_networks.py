"""Networks as a set."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from paraglider.config.networks import Networks

SOME = Networks(map(ip_network, ("10.0.0.0/8", "192.0.2.7/32", "0.0.0.0/32", "2001:db8::/64")))


@pytest.mark.parametrize("text", ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::ffff"])
def test_an_address_is_in_one_of_them(text: str) -> None:
    """Both ends of a network, a single address, both families."""
    assert ip_address(text) in SOME


@pytest.mark.parametrize("text", ["11.0.0.0", "192.0.2.8", "2001:db8:0:1::", "::", "::a00:1"])
def test_an_address_is_in_none(text: str) -> None:
    """Also not one of the other family with the same number."""
    assert ip_address(text) not in SOME


def test_every_address_is_in_the_whole() -> None:
    """A prefix of no bits."""
    assert ip_address("203.0.113.9") in Networks([ip_network("0.0.0.0/0")])
    assert ip_address("::1") not in Networks([ip_network("0.0.0.0/0")])

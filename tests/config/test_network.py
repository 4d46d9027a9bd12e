"""Tests of ``paraglider.config.network``: names of interfaces, addresses of gateways."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest
from pydantic import ValidationError

from paraglider.config.network import Network, gateways_of


def test_both_sides() -> None:
    """Interfaces, and the gateway addresses of the private one; each side may be left out."""
    network = Network.model_validate(
        {
            "public": {"interface": "eth0.7"},
            "private": {"interface": "br-lan", "gateway": ["10.0.0.254/24", "fd00::1/64"]},
        }
    )
    assert network.public is not None
    assert network.private is not None
    assert (network.public.interface, network.private.interface) == ("eth0.7", "br-lan")
    assert network.private.gateway == (ip_interface("10.0.0.254/24"), ip_interface("fd00::1/64"))
    assert (Network().public, Network().private, Network().exempt) == (None, None, ())


@pytest.mark.parametrize("name", ["", "eth+", "!eth0", "a/b", "sixteen.letters.", "-x"])
def test_names_that_are_none(name: str) -> None:
    """Neither the kernel nor iptables takes them as the name of one interface."""
    with pytest.raises(ValidationError):
        Network.model_validate({"public": {"interface": name}})


def test_gateways_of_a_family() -> None:
    """Those that are known, in the order of the file."""
    gateway = ["10.0.0.254/24", {"interface": "eth1"}, "fd00::1/64"]
    network = Network.model_validate({"private": {"interface": "eth1", "gateway": gateway}})
    assert gateways_of(network, 4) == [ip_interface("10.0.0.254/24")]
    assert gateways_of(network, 6) == [ip_interface("fd00::1/64")]
    assert gateways_of(Network(), 4) == []

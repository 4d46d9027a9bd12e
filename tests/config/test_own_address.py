"""Tests of ``paraglider.config.own_address``: an interface of this host in place of an address."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

import pytest

from paraglider.config.diagnostics import ConfigError
from paraglider.config.load import parse
from paraglider.config.model import Config
from paraglider.config.own_address import OwnAddress, take_address

FILE = """\
network: {private: {interface: eth1, gateway: [{interface: eth1}, 10.0.0.254/8]}}
services:
  - {name: a, vip: 192.0.2.1/24, protocol: tcp, ports: 80, forward: offload, snat: SNAT,
     backends: [10.0.0.1]}
"""


def refused(snat: str) -> str:
    """The error of a file with ``snat``, without its place."""
    with pytest.raises(ConfigError) as caught:
        parse(FILE.replace("SNAT", snat), "f")
    (line,) = caught.value.lines
    assert line.startswith("f:3:")
    return line.split(": ", 1)[1]


def test_a_file_names_the_interface() -> None:
    """The addresses are not known then."""
    config = parse(FILE.replace("SNAT", "{interface: eth1, network: 10.0.0.0/8}"), "f").config
    (service,) = config.services
    assert isinstance(service.snat, OwnAddress)
    assert (service.snat.interface, str(service.snat.network)) == ("eth1", "10.0.0.0/8")
    assert service.snat_address is None
    assert str(service.snat) == "address on eth1 in 10.0.0.0/8"
    assert "the backends see this host's address on eth1" in service.method.describe(service)
    private = config.network.private
    assert private is not None
    assert private.gateways == private.added == (ip_interface("10.0.0.254/8"),)
    assert not private.complete


@pytest.mark.parametrize(
    ("snat", "error"),
    [
        ("eth1", "`snat`: 'eth1' is no IP address; for this host's address there write {interface"),
        ("10.0.0.256", "`snat`: '10.0.0.256' is no IP address; write an IPv4 or IPv6 address such"),
        ("{network: 10.0.0.0/8}", "`snat` has no `interface`; add `interface: ...`"),
        ("{interface: a b}", "`interface`: 'a b' is no name of an interface; write its name as"),
        ("{interface: e, net: 1}", "unknown key `net`; did you mean `network`?"),
        ("{interface: e, addresses: []}", "unknown key `addresses`; the keys here are: interface,"),
        ("{interface: e, network: 10.0.0.9/8}", "`network`: '10.0.0.9/8' is an address in a netw"),
        ("{interface: e, network: all}", "`network`: 'all' is no network; write one such as 10.0"),
        ("{interface: e, network: 'fd00::/8'}", "`snat`: the network fd00::/8 is IPv6, the VIP is"),
    ],
)
def test_mistakes_have_a_remedy(snat: str, error: str) -> None:
    """At their places."""
    assert refused(snat).startswith(error)


def test_what_is_found_passes_between_processes() -> None:
    """A daemon sends its configuration to its processes, and stores it."""
    found = OwnAddress(
        interface="eth1", addresses=(ip_interface("10.0.0.7/8"), ip_interface("fd00::7/64"))
    )
    config = parse(FILE.replace("SNAT", "{interface: eth1}"), "f").config
    services = (config.services[0].model_copy(update={"snat": found}),)
    plain = json.loads(
        json.dumps(
            config.model_copy(update={"services": services}).model_dump(mode="json", by_alias=True)
        )
    )
    (again,) = Config.model_validate(plain).services
    assert again.snat == found
    assert str(again.snat_address) == "10.0.0.7"
    assert str(found) == "10.0.0.7 (eth1), fd00::7 (eth1)"


@pytest.mark.parametrize(
    ("own", "family", "taken"),
    [
        ({}, 4, ["10.0.0.7/8", "172.16.0.1/12"]),
        ({"network": "172.16.0.0/12"}, 4, ["172.16.0.1/12"]),
        ({"network": "10.0.0.9/32"}, 4, ["10.0.0.9/32"]),
        ({"network": "172.16.0.0/12"}, 6, []),
        ({}, 6, ["fd00::9/128"]),
    ],
)
def test_which_address_is_taken(own: dict[str, Any], family: int, taken: list[str]) -> None:
    """The first one; those that stand alone, as VRRP adds them, only where there is no other."""
    texts = ("10.0.0.9/32", "10.0.0.7/8", "fd00::9/128", "172.16.0.1/12")
    found = take_address(
        OwnAddress.model_validate({"interface": "eth1", **own}),
        family,
        list(map(ip_interface, texts)),
    )
    assert list(map(str, found)) == taken

"""Tests of ``paraglider.forward.dsr.host``: routing, its order, and its preconditions."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_interface
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.config.types import IPInterface
from paraglider.errors import OperatorError
from paraglider.forward.dsr.host import check_host, needs
from paraglider.forward.dsr.marks import route_marks
from paraglider.host.changes.routes import entry_change

DSR = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80, "forward": "dsr"}
DSR |= {"backends": ["10.0.0.1", "10.0.0.2"]}
SIX = {**DSR, "name": "six", "vip": "2001:db8::11/64", "backends": ["fd00:10::1"]}


def config(*services: dict[str, Any], private: str = "eth1", gateway: bool = True) -> Config:
    """A configuration with both interfaces."""
    sides: dict[str, Any] = {"public": {"interface": "eth0"}, "private": {"interface": private}}
    if gateway:
        sides["private"]["gateway"] = ["10.0.0.254/8", "fd00:10::fe/64"]
    return Config.model_validate({"network": sides, "services": list(services or (DSR,))})


def told(wanted: Config, family: int = 4) -> list[str]:
    """The entries of the routing, in their order."""
    return [entry_change(family, e).describe("apply") for e in needs(wanted, family).routing]


def test_backends_first_then_the_vips() -> None:
    """No VIP is attracted before the routes exist; services share VIPs and backends."""
    more = {**DSR, "name": "more", "ports": 81}
    other = {**DSR, "name": "other", "vip": "192.168.0.12/24", "backends": ["10.0.0.2"]}
    wanted = config(DSR, more, other, SIX)
    one, two = (f"0x{mark:x}" for mark in route_marks(wanted, 4).values())
    assert told(wanted) == [
        f"route default via 10.0.0.1 dev eth1 table {one} onlink",
        f"policy rule fwmark {one}/0xffbfffff lookup {one} priority 82",
        f"route default via 10.0.0.2 dev eth1 table {two} onlink",
        f"policy rule fwmark {two}/0xffbfffff lookup {two} priority 82",
        "route 192.168.0.11 dev eth1",
        "route 192.168.0.12 dev eth1",
        "proxy: eth0 answers for 192.168.0.11",
        "proxy: eth0 answers for 192.168.0.12",
    ]
    assert len(told(wanted, 6)) == 4


def test_one_link() -> None:
    """The kernel answers only for addresses that are not on the same link:
    the route leads to lo.
    """
    assert "route 192.168.0.11 dev lo" in told(config(private="eth0"))


def test_other_forwards_have_none() -> None:
    """A file without a network has none either."""
    assert told(config({**DSR, "forward": "nat"})) == []
    assert told(Config.model_validate({"services": [DSR]})) == []


Addresses = dict[str, list[IPInterface]]


def refused(
    wanted: Config, addresses: Addresses, leaving: Collection[tuple[str, IPInterface]] = ()
) -> str:
    """Why the host is not suited, empty when it is."""
    try:
        check_host(wanted, 4, addresses, leaving)
    except OperatorError as error:
        return str(error)
    return ""


def test_a_vip_of_this_host() -> None:
    """On any interface; one that an earlier set-up added is ignored, because it will be removed."""
    assert refused(config(), {}) == ""
    vip = ip_interface("192.168.0.11/32")
    said = refused(config(), {"lo": [vip]})
    assert "the VIP 192.168.0.11 of `web` is an address of this host (lo)" in said
    assert "ip address del 192.168.0.11 dev lo" in said
    assert refused(config(), {"lo": [vip]}, {("lo", vip)}) == ""
    assert refused(config({**DSR, "forward": "nat"}), {"lo": [vip]}) == ""


def test_a_backend_off_the_link() -> None:
    """Neither in a network of the interface nor in one of a gateway that will be added."""
    far = {**DSR, "backends": ["10.0.0.1", "172.16.0.1"]}
    said = refused(config(far), {})
    assert "backend 172.16.0.1 of `web` is in no network of eth1 (it has: 10.0.0.0/8)" in said
    assert "use `forward: nat`" in said
    assert refused(config(far), {"eth1": [ip_interface("172.16.0.254/12")]}) == ""


def test_an_interface_without_addresses() -> None:
    """The error says so."""
    assert "(it has: none)" in refused(config(gateway=False), {})
    assert refused(config(gateway=False), {"eth1": [ip_interface("10.0.0.254/24")]}) == ""


@pytest.mark.parametrize("services", [(SIX,), (DSR, SIX)])
def test_the_other_family_is_not_checked(services: tuple[Any, ...]) -> None:
    """Its own run does."""
    addresses: Addresses = {"lo": [ip_interface("2001:db8::11/128")]}
    assert refused(config(*services), addresses) == ""
    with pytest.raises(OperatorError, match="2001:db8::11 of `six`"):
        check_host(config(*services), 6, addresses, ())

"""The ways of dsr: what leads to the backends, in which order, and what must be so before."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import OperatorError
from paraglider.forward.dsr.marks import way_marks
from paraglider.host.changes.base import Change
from paraglider.host.changes.links import AddressChange
from paraglider.host.dsr_routes import refuse, ways

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
    """What the ways say of themselves."""
    return [change.describe("apply") for change in ways(wanted, family)]


def test_backends_first_then_the_vips() -> None:
    """Nothing is drawn here before there is a way on; services share VIPs and backends."""
    more = {**DSR, "name": "more", "ports": 81}
    other = {**DSR, "name": "other", "vip": "192.168.0.12/24", "backends": ["10.0.0.2"]}
    wanted = config(DSR, more, other, SIX)
    one, two = (f"0x{mark:x}" for mark in way_marks(wanted, 4).values())
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
    """The kernel answers only for what is not on the link that asks: the route leads nowhere."""
    assert "route 192.168.0.11 dev lo" in told(config(private="eth0"))


def test_other_forwards_have_none() -> None:
    """Nor has a file without a network."""
    assert told(config({**DSR, "forward": "nat"})) == []
    assert told(Config.model_validate({"services": [DSR]})) == []


def refused(air: Any, wanted: Config, earlier: list[Change] | None = None) -> str:
    """Why the host is not suited, empty when it is."""
    try:
        refuse(wanted, 4, air.host, earlier or [])
    except OperatorError as error:
        return str(error)
    return ""


def test_a_vip_of_this_host(air: Any) -> None:
    """On whatever interface; one that an earlier set-up added is about to go."""
    assert refused(air, config()) == ""
    air.netlink.add_address("lo", ip_interface("192.168.0.11/32"))
    said = refused(air, config())
    assert "the VIP 192.168.0.11 of `web` is an address of this host (lo)" in said
    assert "ip address del 192.168.0.11 dev lo" in said
    assert refused(air, config(), [AddressChange(4, "lo", "192.168.0.11/32")]) == ""
    assert refused(air, config({**DSR, "forward": "nat"})) == ""


def test_a_backend_off_the_link(air: Any) -> None:
    """Neither in a network of the interface nor of a gateway that it is about to get."""
    far = {**DSR, "backends": ["10.0.0.1", "172.16.0.1"]}
    said = refused(air, config(far))
    assert "backend 172.16.0.1 of `web` is in no network of eth1 (it has: 10.0.0.0/8)" in said
    assert "use `forward: nat`" in said
    air.netlink.add_address("eth1", ip_interface("172.16.0.254/12"))
    assert refused(air, config(far)) == ""


def test_an_interface_without_addresses(air: Any) -> None:
    """Says so."""
    assert "(it has: none)" in refused(air, config(gateway=False))
    air.netlink.add_address("eth1", ip_interface("10.0.0.254/24"))
    assert refused(air, config(gateway=False)) == ""


@pytest.mark.parametrize("services", [(SIX,), (DSR, SIX)])
def test_the_other_family_is_not_looked_at(air: Any, services: tuple[Any, ...]) -> None:
    """Its own run does."""
    air.netlink.add_address("lo", ip_interface("2001:db8::11/128"))
    assert refused(air, config(*services)) == ""
    with pytest.raises(OperatorError, match="2001:db8::11 of `six`"):
        refuse(config(*services), 6, air.host, [])

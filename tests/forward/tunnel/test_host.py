"""The needs of tunnels on the balancer: VIPs are attracted, backends need nothing."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.config.service import METHODS
from paraglider.errors import OperatorError
from paraglider.forward.tunnel.host import check_host, needs

TUNNEL = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "forward": "tunnel"}
TUNNEL |= {"backends": ["10.0.0.1"]}
SIX = {**TUNNEL, "name": "six", "vip": "2001:db8::11/64", "backends": ["fd00:10::1"]}


def config(*services: dict[str, Any]) -> Config:
    """A configuration with a public interface alone."""
    network = {"public": {"interface": "eth0"}}
    return Config.model_validate({"network": network, "services": list(services)})


@pytest.mark.parametrize(("family", "nowhere"), [(4, "lo"), (6, "eth0")])
def test_vips_are_attracted(family: int, nowhere: str) -> None:
    """Of each family its own; IPv6 has no route to lo, which would be an unreachable one."""
    found = needs(config(TUNNEL, SIX), family, METHODS["tunnel"])
    vip = {4: "192.168.0.11", 6: "2001:db8::11"}[family]
    assert str(found.routing[0]) == f"{vip} dev {nowhere}"
    assert len(found.routing) == 2
    assert found.sysctls


def test_others_have_none() -> None:
    """Services of other methods are not this method's."""
    wanted = config({**TUNNEL, "forward": "nat"})
    assert needs(wanted, 4, METHODS["tunnel"]).routing == ()


def test_a_vip_of_this_host() -> None:
    """It is refused."""
    addresses = {"eth0": [ip_interface("192.168.0.11/24")]}
    with pytest.raises(OperatorError, match="forward: tunnel"):
        check_host(config(TUNNEL), 4, METHODS["tunnel"], addresses, ())
    check_host(config(SIX), 4, METHODS["tunnel"], addresses, ())

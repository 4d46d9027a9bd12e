"""VIPs that only the backends have: the host attracts their packets without having the address."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.errors import OperatorError
from paraglider.forward.vip_attraction import attracted, refuse_local_vips, vip_sysctls

SERVICE = {"vip": "192.168.0.11/24", "protocol": "tcp", "forward": "dsr", "backends": ["10.0.0.1"]}


def config(*names: str, **network: Any) -> Config:
    """A configuration with a service for each of ``names``, on ports of their own."""
    services = [{**SERVICE, "name": name, "ports": 80 + i} for i, name in enumerate(names)]
    return Config.model_validate({"network": network, "services": services})


def test_services_share_a_vip() -> None:
    """It is routed and answered for once, routed first."""
    entries = [str(entry) for entry in attracted(config("a", "b").services, "eth0", "lo")]
    assert entries[0] == "192.168.0.11 dev lo"
    assert len(entries) == 2
    assert "interface='eth0'" in entries[1]


def test_proxies_answer_at_once() -> None:
    """The delay of proxy answers is taken away where it can be; IPv6 proxies must be enabled."""
    wanted = config("a", public={"interface": "eth0"})
    assert [need.key for need in vip_sysctls(wanted, 4)] == ["net/ipv4/neigh/eth0/proxy_delay"]
    assert [need.key for need in vip_sysctls(wanted, 6)] == [
        "net/ipv6/conf/eth0/proxy_ndp",
        "net/ipv6/neigh/eth0/proxy_delay",
    ]
    assert vip_sysctls(config("a"), 4) == ()


def test_a_vip_of_this_host() -> None:
    """The error names the forward method; an address that is about to be removed is ignored."""
    services, vip = config("a").services, ip_interface("192.168.0.11/32")
    refuse_local_vips(services, {"eth0": [ip_interface("192.168.0.1/24")]}, ())
    refuse_local_vips(services, {"lo": [vip]}, {("lo", vip)})
    with pytest.raises(OperatorError, match=r"192.168.0.11 of `a`.*\(lo\).*`forward: dsr`"):
        refuse_local_vips(services, {"lo": [vip]}, ())

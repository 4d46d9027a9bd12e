"""Whether packets reach the backends by this host's routes, and their answers pass here."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.load import parse
from paraglider.host.backend_routes import route_warnings
from paraglider.host.netlink import RouteTowards

FAMILIES = frozenset({4, 6})
BY_ROUTER = RouteTowards("eth0", ipaddress.ip_address("192.168.0.254"))
#: with a neighbour, one behind a router, and one without a route
ROUTES = {"10.0.0.1": RouteTowards("eth1"), "172.16.0.1": BY_ROUTER, "172.16.0.2": BY_ROUTER}
ROUTES |= {"172.17.0.1": BY_ROUTER, "203.0.113.1": None, "2001:db8:9::1": None}


def config(*backends: str, vip: str = "192.168.0.11/24", **changes: Any) -> Config:
    """A service ``web``."""
    service = {"name": "web", "vip": vip, "protocol": "tcp", "ports": 80}
    service |= {"backends": list(backends), **changes}
    service = {key: value for key, value in service.items() if value is not None}
    private = {"interface": "eth1", "gateway": ["10.9.0.254/24"]}
    network = {"public": {"interface": "eth0"}, "private": private}
    return parse(json.dumps({"network": network, "services": [service]}), "f").config


def said(air: Any, given: Config) -> list[str]:
    """The warnings."""
    air.netlink.towards = ROUTES
    return list(route_warnings(given, FAMILIES, air.host))


def test_neighbours(air: Any) -> None:
    """A backend on a link, and one in the network that the set-up will add, are as they must be."""
    assert said(air, config("10.0.0.1", "10.9.0.1")) == []


@pytest.mark.parametrize("forward", ["nat", "offload", "tunnel", "proxy"])
def test_backends_without_a_route(air: Any, forward: str) -> None:
    """No packet reaches them, whatever the method (dsr has neighbours alone); both families."""
    for backend, vip in (("203.0.113.1", "192.168.0.11/24"), ("2001:db8:9::1", "2001:db8::11/64")):
        (line,) = said(air, config(backend, vip=vip, forward=forward))
        assert line == (
            f"`web`: this host has no route to the backend {backend}, so no packet reaches it; add"
            " one (ip route add)"
        )


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"forward": "nat"}, True),
        ({"forward": "nat", "return": "direct"}, False),
        ({"forward": "offload"}, True),
        ({"forward": "offload", "snat": "10.9.0.254"}, False),
        ({"forward": "tunnel"}, False),
        ({"forward": "proxy"}, False),
    ],
)
def test_backends_behind_a_router(air: Any, changes: dict[str, Any], warned: bool) -> None:
    """Their answers must come back here, where the method has them pass; one line for all."""
    lines = said(air, config("172.16.0.1", "172.16.0.2", "172.17.0.1", "10.0.0.1", **changes))
    line = (
        "`web`: each of 3 backends (172.16.0.1, 172.16.0.2, 172.17.0.1) is behind the router"
        " 192.168.0.254, and its answers must pass this host; have that router send them here,"
        " or use `forward: offload` with `snat`, `tunnel` or `proxy`"
    )
    assert lines == ([line] if warned else [])


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"forward": "nat"}, True),
        ({"forward": "nat", "return": "direct"}, False),
        ({"forward": "offload"}, False),
        ({"forward": "proxy"}, False),
    ],
)
def test_backends_in_the_clients_network(air: Any, changes: dict[str, Any], warned: bool) -> None:
    """They answer its clients past this host: one network card for everything."""
    lines = said(air, config("192.168.0.51", **changes))
    assert [line.partition(", and answers")[0] for line in lines] == (
        ["`web`: the backend 192.168.0.51 is in the VIP's network 192.168.0.0/24"] if warned else []
    )
    assert said(air, config("192.168.0.51", vip="192.168.0.11/32", **changes)) == []


def test_routes_that_depend_on_the_source(air: Any) -> None:
    """With a policy rule for packets of an interface, or a VRF, those of clients go elsewhere than
    this host's own: nothing is said of that family's routes.
    """
    air.routing.by_policy = {4}
    assert said(air, config("172.16.0.1", "203.0.113.1")) == []
    assert len(said(air, config("2001:db8:9::1", vip="2001:db8::11/64"))) == 1
    assert "VIP's network" in said(air, config("192.168.0.51"))[0]


def test_a_backend_that_is_this_host(air: Any) -> None:
    """Nothing passes it."""
    air.netlink.held["eth0"].append(ipaddress.ip_interface("192.168.0.51/24"))
    assert said(air, config("192.168.0.51")) == []


@pytest.mark.parametrize(
    ("protocol", "others", "warned"),
    [("any", (), True), ("any", ("192.168.0.9/24",), False), ("tcp", (), False)],
)
def test_the_only_address(air: Any, protocol: str, others: tuple[str, ...], warned: bool) -> None:
    """With `any` all that comes to it is balanced, ssh too."""
    for address in ("192.168.0.11/24", *others, "2001:db8::9/64"):
        air.netlink.held["eth0"].append(ipaddress.ip_interface(address))
    ports = 80 if protocol == "tcp" else None
    lines = said(air, config("10.0.0.1", protocol=protocol, ports=ports))
    assert len(lines) == warned
    assert all("192.168.0.11 is this host's only IPv4 address" in line for line in lines)


def test_two_thousand_backends_are_one_line(air: Any) -> None:
    """It names some of them."""
    many = [f"172.{20 + number // 250}.0.{number % 250 + 1}" for number in range(2000)]
    air.netlink.towards = dict.fromkeys(many)
    (line,) = route_warnings(config(*many), FAMILIES, air.host)
    assert "no route to each of 2000 backends (172.20.0.1, 172.20.0.2, 172.20.0.3, …)," in line

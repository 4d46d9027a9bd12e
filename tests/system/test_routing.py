"""Routes, policy rules and proxies, in a namespace of its own with a veth pair."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from paraglider.config.types import IPAddress
from paraglider.errors import PlatformError
from paraglider.lab.namespace import Namespace
from paraglider.system.routing import Route, Routing

TABLE = 0x52000001
VIPS = [ip_address("192.168.0.11"), ip_address("2001:db8::11")]
BACKENDS = [ip_address("10.0.0.1"), ip_address("fd00:10::1")]
ROUTES = [
    *(Route("eth0", vip) for vip in VIPS),
    *(Route("eth1", None, TABLE, backend) for backend in BACKENDS),
]


@pytest.mark.parametrize(
    ("route", "text"),
    [
        (ROUTES[0], "192.168.0.11 dev eth0"),
        (ROUTES[3], "default via fd00:10::1 dev eth1 table 0x52000001 onlink"),
    ],
)
def test_a_route_as_text(route: Route, text: str) -> None:
    """What ip(8) takes."""
    assert str(route) == text


@pytest.mark.root
@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_routes_come_and_go(inside: Namespace, route: Route) -> None:
    """Only just this one is it; removing twice is no error; the gateway needs no address here."""
    routing = Routing()
    assert not routing.has_route(route)
    routing.add_route(route)
    assert routing.has_route(route)
    other = Route("lo", route.address, route.table, route.via)
    assert not routing.has_route(other)
    routing.remove_route(other)
    assert routing.has_route(route)
    routing.remove_route(route)
    routing.remove_route(route)
    assert not routing.has_route(route)


@pytest.mark.root
def test_a_route_by_which_others_pass_is_none_to_an_address(inside: Namespace) -> None:
    """What a default route or a network's leads to has no route of its own."""
    inside.ip("address add 192.168.0.1/24 dev eth0", "route add default dev eth1")
    assert not Routing().has_route(ROUTES[0])


@pytest.mark.root
def test_a_route_of_somebody_elses(inside: Namespace) -> None:
    """It is in the way, and stays."""
    routing = Routing()
    inside.ip("route add 192.168.0.11 dev eth1")
    assert not routing.has_route(ROUTES[0])
    with pytest.raises(PlatformError, match=r"cannot add the route 192\.168\.0\.11 dev eth0"):
        routing.add_route(ROUTES[0])
    routing.remove_route(ROUTES[0])
    assert routing.has_route(Route("eth1", VIPS[0]))


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_policy_rules_come_and_go(inside: Namespace, family: int) -> None:
    """Each is told from one with another mark, table or priority."""
    routing = Routing()
    rule = (family, TABLE, 0xFFBFFFFF, TABLE, 82)
    routing.add_rule(*rule)
    routing.add_rule(*rule)
    assert routing.has_rule(*rule)
    for other in ((TABLE + 1, 0xFFBFFFFF, TABLE, 82), (TABLE, 0xFFBFFFFF, TABLE, 83)):
        assert not routing.has_rule(family, *other)
        routing.remove_rule(family, *other)
    assert not routing.has_rule(10 - family, *rule[1:])
    routing.remove_rule(*rule)
    routing.remove_rule(*rule)
    assert not routing.has_rule(*rule)


@pytest.mark.root
@pytest.mark.parametrize("vip", VIPS, ids=str)
def test_proxies_come_and_go(inside: Namespace, vip: IPAddress) -> None:
    """On the interface that was named alone."""
    routing = Routing()
    for _ in range(2):
        routing.add_proxy("eth0", vip)
    assert routing.has_proxy("eth0", vip)
    assert not routing.has_proxy("eth1", vip)
    for _ in range(2):
        routing.remove_proxy("eth0", vip)
    assert not routing.has_proxy("eth0", vip)


@pytest.mark.root
def test_an_interface_that_is_gone(inside: Namespace) -> None:
    """It has nothing, and nothing to take back; adding is an error."""
    routing = Routing()
    gone = Route("eth9", VIPS[0])
    assert not routing.has_route(gone)
    assert not routing.has_proxy("eth9", VIPS[0])
    routing.remove_route(gone)
    routing.remove_proxy("eth9", VIPS[0])
    for add in (lambda: routing.add_route(gone), lambda: routing.add_proxy("eth9", VIPS[0])):
        with pytest.raises(PlatformError, match="eth9 is gone"):
            add()

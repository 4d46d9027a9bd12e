"""Routes, policy rules and proxies, in a network namespace with a veth pair."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from paraglider.errors import PlatformError
from paraglider.forward.host_needs import PolicyRule, ProxyEntry, Route, RoutingEntry
from paraglider.host import rtnetlink
from paraglider.host.routing import Routing
from paraglider.lab.namespace import Namespace

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
    """As ip(8) prints it."""
    assert str(route) == text


def held(family: int) -> frozenset[RoutingEntry]:
    """The entries of the namespace by its interfaces."""
    return Routing().held(family, ("lo", "eth0", "eth1", "eth9"))


@pytest.mark.root
@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_routes_come_and_go(inside: Namespace, route: Route) -> None:
    """Only this route; removing it twice is no error; the gateway needs no address here."""
    routing = Routing()
    assert route not in held(route.family)
    routing.add_route(route)
    assert route in held(route.family)
    assert route not in routing.held(route.family, ("lo",))
    other = Route("lo", route.address, route.table, route.via)
    assert other not in held(route.family)
    routing.remove_route(other)
    assert route in held(route.family)
    routing.remove_route(route)
    routing.remove_route(route)
    assert route not in held(route.family)


@pytest.mark.root
def test_a_route_by_which_others_pass_is_none_to_an_address(inside: Namespace) -> None:
    """An address reached by a default route or a network's has no route of its own."""
    inside.ip("address add 192.168.0.1/24 dev eth0", "route add default dev eth1")
    assert ROUTES[0] not in held(4)


@pytest.mark.root
def test_a_foreign_route_stays(inside: Namespace) -> None:
    """It prevents ours, and stays."""
    routing = Routing()
    inside.ip("route add 192.168.0.11 dev eth1")
    assert ROUTES[0] not in held(4)
    with pytest.raises(PlatformError, match=r"cannot add the route 192\.168\.0\.11 dev eth0"):
        routing.add_route(ROUTES[0])
    routing.remove_route(ROUTES[0])
    assert Route("eth1", VIPS[0]) in held(4)


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_policy_rules_come_and_go(inside: Namespace, family: int) -> None:
    """Rules with another mark, table or priority are different."""
    routing = Routing()
    rule = PolicyRule(family, TABLE, 0xFFBFFFFF, TABLE, 82)
    routing.add_rule(rule)
    routing.add_rule(rule)
    assert rule in held(family)
    assert rule not in held(10 - family)
    for other in (rule._replace(mark=TABLE + 1), rule._replace(priority=83)):
        assert other not in held(family)
        routing.remove_rule(other)
    assert rule in held(family)
    routing.remove_rule(rule)
    routing.remove_rule(rule)
    assert rule not in held(family)


@pytest.mark.root
@pytest.mark.parametrize("entry", [ProxyEntry("eth0", vip) for vip in VIPS], ids=str)
def test_proxies_come_and_go(inside: Namespace, entry: ProxyEntry) -> None:
    """Only on the named interface."""
    routing, family = Routing(), entry.address.version
    for _ in range(2):
        routing.add_proxy(entry)
    assert entry in held(family)
    assert entry._replace(interface="eth1") not in held(family)
    for _ in range(2):
        routing.remove_proxy(entry)
    assert entry not in held(family)


@pytest.mark.root
def test_an_interface_that_is_gone(inside: Namespace) -> None:
    """It has no entries, and none to remove; adding is an error."""
    routing = Routing()
    route, proxy = Route("eth9", VIPS[0]), ProxyEntry("eth9", VIPS[0])
    assert not {route, proxy} & held(4)
    routing.remove_route(route)
    routing.remove_proxy(proxy)
    adding: tuple[Callable[[], None], ...] = (
        lambda: routing.add_route(route),
        lambda: routing.add_proxy(proxy),
    )
    for add in adding:
        with pytest.raises(PlatformError, match="eth9 is gone"):
            add()


@pytest.mark.root
def test_the_kernel_lists_what_was_asked_for(
    inside: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four dumps for any number of entries, without routes of other links."""
    routing = Routing()
    inside.ip("address add 10.0.0.254/8 dev eth1", "address add 192.168.0.1/24 dev eth0")
    lists: list[list[bytes]] = []
    ask = rtnetlink.dump

    def counted(*arguments: Any, **named: Any) -> list[bytes]:
        lists.append(ask(*arguments, **named))
        return lists[-1]

    monkeypatch.setattr(rtnetlink, "dump", counted)
    others = len(routing.held(4, ("eth0", "eth1")))
    for size in (10, 40):
        for number in range(size):
            mark = TABLE + number
            routing.add_rule(PolicyRule(4, mark, 0xFFBFFFFF, mark, 82))
            route = Route("eth1", None, mark, ip_address(f"10.0.0.{number + 1}"))
            routing.remove_route(route)
            routing.add_route(route)
        lists.clear()
        assert len(routing.held(4, ("eth0", "eth1"))) == others + 2 * size
        assert len(lists) == 4
        assert len(lists[2]) < size  # eth0's


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_rules_that_ask_for_more_than_the_destination(inside: Namespace, family: int) -> None:
    """The interface, or where a packet comes from; not a mark, as Paraglider's own rules."""
    routing = Routing()
    routing.add_rule(PolicyRule(family, 0x52000000, 0xFF000000, TABLE, 82))
    inside.run(["ip", f"-{family}", "rule", "add", "to", str(BACKENDS[family == 6]), "lookup", "9"])
    assert not routing.is_by_policy(family)
    for more in (["iif", "eth0"], ["from", str(VIPS[family == 6])], ["dport", "80"]):
        rule = [*more, "lookup", "9"]
        inside.run(["ip", f"-{family}", "rule", "add", *rule])
        assert routing.is_by_policy(family)
        inside.run(["ip", f"-{family}", "rule", "del", *rule])
    assert not routing.is_by_policy(family)


def test_a_kernel_without_policy_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or without IPv6: it refuses to list them, and there are none."""

    def refuse(*_: Any) -> list[bytes]:
        raise PlatformError("cannot list the policy rules: Operation not supported")

    monkeypatch.setattr(rtnetlink, "dump", refuse)
    assert not Routing().is_by_policy(6)

"""Hosts that failover found: where they join, and where they never do."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.daemon.store.discovered import DiscoveredHosts
from paraglider.health.sweep import MOST

HOST = ipaddress.ip_address("10.0.0.77")
SIX = ipaddress.ip_address("fd00:10::77")
PRIVATE = {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]}


def service(name: str = "web", **changes: Any) -> dict[str, Any]:
    """A service of HTTP over one listed backend."""
    return {
        "name": name, "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80,
        "backends": ["10.0.0.1"], **changes,
    }  # fmt: skip


def mapped(*places: str) -> list[dict[str, Any]]:
    """Backends whose ports are mapped."""
    pairs = (place.split(":") for place in places)
    return [{"address": address, "port": int(port)} for address, port in pairs]


def config(*services: dict[str, Any], **top: Any) -> Config:
    """A configuration with failover and discovery."""
    public = {"interface": "eth0"}
    network = {"public": public, "private": PRIVATE, "exempt": ["10.0.0.53:53/udp"]}
    return Config.model_validate(
        {"failover": {"enabled": True}, "network": network, **top, "services": services}
    )


def names(found: Config) -> dict[str, list[str]]:
    """The backends of every service."""
    return {
        s.name: [f"{b.address}" + (f":{b.port}" if b.port else "") for b in s.backends]
        for s in found.services
    }


def test_a_host_joins_and_leaves() -> None:
    """It is a backend as if it were listed; a repeated report changes nothing."""
    hosts, web = DiscoveredHosts(), config(service())
    assert hosts.join(HOST, web)
    assert not hosts.join(HOST, web)
    assert HOST in hosts
    joined = hosts.into(web)
    assert names(joined) == {"web": ["10.0.0.1", "10.0.0.77"]}
    assert joined.services[0].backends[1].weight == 1
    assert hosts.leave(HOST)
    assert not hosts.leave(HOST)
    assert hosts.into(web) is web


@pytest.mark.parametrize(
    "address",
    ["192.168.0.11", "10.0.0.254", "10.0.0.53", "172.16.0.1", "8.8.8.8", "fd00:10::fe", "fd00::1"],
)
def test_never_taken_in(address: str) -> None:
    """VIPs, gateways, exempt addresses, and addresses outside the gateways' networks."""
    assert not DiscoveredHosts().join(ipaddress.ip_address(address), config(service()))


def test_without_gateways_the_checker_decides() -> None:
    """If the file has no network, hosts that answer its ping are in it."""
    assert DiscoveredHosts().join(HOST, config(service(), network={}))


def test_no_more_than_there_may_be() -> None:
    """A network full of answers is bounded here too."""
    found, web = DiscoveredHosts(), config(service())
    hosts = [ipaddress.ip_address(f"10.1.{n // 250}.{n % 250 + 1}") for n in range(MOST + 1)]
    assert [found.join(host, web) for host in hosts] == [True] * MOST + [False]


def test_services_that_it_joins() -> None:
    """Those of its family, with the common port of their backends, and never of dsr."""
    hosts = DiscoveredHosts()
    wanted = config(
        service("same", backends=mapped("10.0.0.1:8080", "10.0.0.2:8080")),
        service("other", ports=81, backends=mapped("10.0.0.1:8081", "10.0.0.2:8082")),
        service("six", vip="2001:db8::11/64", backends=["fd00:10::1"]),
        service("direct", vip="192.168.0.12/24", forward="dsr", backends=["10.0.0.9"]),
        service("listed", ports=82, backends=["10.0.0.77"]),
    )
    for host in (HOST, SIX):
        assert hosts.join(host, wanted)
    assert names(hosts.into(wanted)) == {
        "same": ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.77:8080"],
        "other": ["10.0.0.1:8081", "10.0.0.2:8082"],
        "six": ["fd00:10::1", "fd00:10::77"],
        "direct": ["10.0.0.9"],
        "listed": ["10.0.0.77"],
    }


def test_what_contradicts_is_left_out() -> None:
    """One port of a host is never used by two services whose answers could not be distinguished."""
    hosts = DiscoveredHosts()
    first = service("first")
    second = service("second", ports=81, forward="offload", backends=mapped("10.0.0.2:80"))
    wanted = config(first, second)
    assert hosts.join(HOST, wanted)
    assert names(hosts.into(wanted)) == {
        "first": ["10.0.0.1", "10.0.0.77"],
        "second": ["10.0.0.2:80"],
    }


def test_a_host_that_is_listed_by_now() -> None:
    """A host that was added to the file is not discovered, and leaves only with the file."""
    hosts, web = DiscoveredHosts(), config(service())
    hosts.join(HOST, web)
    joined = hosts.into(web)
    hosts.note_applied(web, joined)
    assert hosts.keys == {("web", "10.0.0.77")}
    assert names(hosts.listed(joined)) == {"web": ["10.0.0.1"]}
    hosts.note_applied(joined, joined)
    assert hosts.keys == frozenset()
    assert hosts.former(("web", "10.0.0.77")) is False
    assert hosts.listed(joined) == joined


def test_what_waits_for_a_restart_is_no_stranger() -> None:
    """A backend that was removed from the file and is still in use was never discovered."""
    hosts, web = DiscoveredHosts(), config(service())
    hosts.join(HOST, web)
    hosts.note_applied(config(service(backends=["10.0.0.5"])), hosts.into(web))
    assert hosts.keys == {("web", "10.0.0.77")}


@pytest.mark.parametrize("failover", [{"enabled": False}, {"enabled": True, "discover": False}])
def test_discovery_is_turned_off(failover: dict[str, bool]) -> None:
    """A reload without it lets all of them go."""
    hosts = DiscoveredHosts()
    hosts.join(HOST, config(service()))
    assert names(hosts.into(config(service(), failover=failover))) == {"web": ["10.0.0.1"]}
    assert HOST not in hosts

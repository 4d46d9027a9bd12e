"""The network of several balancers: who reaches whom, and that it goes away whole."""

from __future__ import annotations

import json

import pytest
from pinging import reachable

from paraglider.lab import namespace
from paraglider.lab.fleet_topology import (
    CLIENTS,
    ROUTER,
    VIP,
    FleetTopology,
    back_address,
    front_address,
)
from paraglider.lab.namespace import Namespace


def hops(net: FleetTopology, family: int) -> set[str]:
    """The next hops of the router's route to the VIP."""
    command = ["ip", f"-{family}", "-json", "route", "show", VIP[family]]
    found: set[str] = set()
    for route in json.loads(net.router.run(command).stdout or "[]"):
        found |= {hop["gateway"] for hop in route.get("nexthops", [route])}
    return found


def carrier(host: Namespace, name: str) -> bool:
    """Whether the other end of the interface's cable is up."""
    (link,) = json.loads(host.run(["ip", "-json", "link", "show", "dev", name]).stdout)
    return "NO-CARRIER" not in link["flags"]


def test_addresses_differ() -> None:
    """Of balancers and backends, on both sides."""
    for family in (4, 6):
        front = [front_address(family, number) for number in (1, 2, 51, 52)]
        back = [back_address(family, number) for number in (1, 2, 201, 202)]
        assert len({*front, *back, ROUTER[family]}) == 9


@pytest.mark.root
def test_the_network() -> None:
    """The client reaches balancers and backends; the router leads to the balancers that it is told;
    a pulled cable is without carrier, and the host keeps its addresses; nothing is left.
    """
    net = FleetTopology(2, backends=1)
    try:
        for family in (4, 6):
            for number in (1, 2):
                assert reachable(net.client, front_address(family, number))
                assert reachable(net.hosts[number - 1], back_address(family, 1))
            assert reachable(net.backends[0], CLIENTS[family][0])
            assert hops(net, family) == set()
            net.lead(family, (1, 2))
            assert hops(net, family) == {front_address(family, number) for number in (1, 2)}
            net.lead(family, (2,))
            assert hops(net, family) == {front_address(family, 2)}
            net.lead(family, ())
            assert hops(net, family) == set()
        net.lead_via({family: front_address(family, 1) for family in (4, 6)})
        assert [hops(net, f) for f in (4, 6)] == [{front_address(f, 1)} for f in (4, 6)]
        net.plug(2, into=False)
        first, second = net.hosts
        assert [carrier(second, name) for name in ("eth0", "eth1")] == [False, False]
        assert carrier(first, "eth0")
        assert front_address(4, 2) in second.run(["ip", "address", "show", "eth0"]).stdout
        net.plug(2, into=True)
        for family in (4, 6):
            assert reachable(net.client, front_address(family, 2))
    finally:
        net.close()
    net.close()
    assert not [name for name in namespace.names() if name.startswith(f"{net.prefix}-")]

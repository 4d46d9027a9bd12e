"""The default route of a backend's host, as a change: beside another, or in its place."""

from __future__ import annotations

import pytest

from paraglider.host.changes.base import Host
from paraglider.host.changes.default_route import DefaultRouteChange, gateway_of, metric
from paraglider.host.changes.records import from_record, to_record
from paraglider.lab.namespace import Namespace

THROUGH = {4: "10.0.0.254", 6: "fd00:10::fe"}
OTHER = {4: "10.0.0.250", 6: "fd00:10::fa"}


def routes(namespace: Namespace, family: int) -> str:
    """All routes as ip(8) lists them."""
    return namespace.run(["ip", f"-{family}", "route"]).stdout


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    "other", [None, "metric 100 proto dhcp", "metric 1 proto static", "", "metric 0 mtu 1400"]
)
def test_ours_comes_first_and_goes_without_a_trace(
    inside: Namespace, family: int, other: str | None
) -> None:
    """With any existing default route, packets use ours, and afterwards the
    routes are as before.
    """
    address = {4: "10.0.0.1/8", 6: "fd00:10::1/64 nodad"}[family]
    inside.ip(f"address add {address} dev eth0")
    if other is not None:
        inside.ip(f"route add default via {OTHER[family]} dev eth0 {other}")
    before = routes(inside, family)
    host = Host()
    for by_script in (False, True):
        present = host.netlink.default_routes(family)
        change = DefaultRouteChange.through(family, THROUGH[family], "eth0", present)
        assert (change.replaced is not None) == (
            other is not None and metric(family, present[0]) <= {4: 0, 6: 1}[family]
        )
        for _ in range(2):  # again changes nothing
            if by_script:
                inside.run(["sh", "-e"], text=change.script(host))
            else:
                change.apply(host)
        way = inside.run(["ip", "route", "get", {4: "192.0.2.1", 6: "2001:db8:9::1"}[family]])
        assert f"via {THROUGH[family]}" in way.stdout
        if by_script:
            inside.run(["sh", "-e"], text=change.revert_script(host))
        else:
            change.revert(host)
            change.revert(host)
        assert routes(inside, family) == before


def test_metric_and_gateway() -> None:
    """IPv6 takes no metric for 1024; several next hops are no gateway."""
    assert metric(4, "default via 10.0.0.1 dev eth0") == 0
    assert metric(6, "default via fd00::1 dev eth0") == 1024
    assert metric(4, "default via 10.0.0.1 dev eth0 metric 100") == 100
    assert gateway_of("default via 10.0.0.1 dev eth0") == "10.0.0.1"
    assert gateway_of("default dev ppp0") is None
    assert gateway_of("default nexthop via 10.0.0.1 nexthop via 10.0.0.2") is None


def test_described_and_stored() -> None:
    """The description names the replaced route; all fields are stored."""
    change = DefaultRouteChange.through(4, "10.0.0.254", "eth0", ["default via 10.0.0.1 dev eth0"])
    assert change.describe("apply") == (
        "route default via 10.0.0.254 dev eth0 in place of default via 10.0.0.1 dev eth0"
    )
    assert change.describe("keep") == "route default via 10.0.0.254 dev eth0"
    assert change.describe("revert").endswith("removed, default via 10.0.0.1 dev eth0 is back")
    assert from_record(to_record(change)) == change

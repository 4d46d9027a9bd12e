"""Tests of ``paraglider.host.plan``: a configuration, compared with a host and a set-up."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.static.checks import kernel_only
from paraglider.host.changes.base import Change
from paraglider.host.changes.links import AddressChange
from paraglider.host.changes.replaced_table import OptionalTableChange
from paraglider.host.changes.ruleset import RulesChange
from paraglider.host.changes.table import TableChange
from paraglider.host.plan import make_plan
from paraglider.host.step import Step

BOTH = frozenset({4, 6})
WEB = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "ports": 80}
WEB |= {"backends": ["10.0.0.1", "172.16.0.1"]}
SIX = {"name": "six", "vip": "2001:db8::11/64", "protocol": "tcp", "ports": 80}
SIX |= {"backends": ["fd00:10::1"]}
NETWORK = {
    "public": {"interface": "eth0"},
    "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
}


def config(*services: dict[str, Any], **top: Any) -> Config:
    """A configuration with both interfaces named and a chroot that exists."""
    content = {"chroot": "/tmp", "network": NETWORK, "services": list(services), **top}
    return Config.model_validate(content)


def plan(air: Any, wanted: Config, earlier: Iterable[Change] = ()) -> list[Step]:
    """The plan for both families with one worker."""
    return make_plan(wanted, BOTH, (0,), 1, air.host, earlier)


def told(steps: list[Step], action: str = "apply") -> list[str]:
    """The descriptions of the steps with this action."""
    return [step.describe() for step in steps if step.action == action]


def test_the_whole_of_ipv4(air: Any) -> None:
    """Rules first, then sysctls, addresses, and the neighbour; the far backend is none."""
    lines = told(plan(air, config(WEB)))
    assert lines.pop(0) == "table ip paraglider-long: packets too long for a queue"
    assert lines.pop(0) == "table ip paraglider-openings: limits of new flows"
    assert lines[0].startswith("rules for IPv4: ")
    assert lines[1:] == [
        "sysctl net.ipv4.ip_forward 0 -> 1",
        "sysctl net.ipv4.conf.all.send_redirects 1 -> 0",
        "sysctl net.ipv4.conf.eth0.send_redirects 1 -> 0",
        "sysctl net.ipv4.conf.eth1.send_redirects 1 -> 0",
        "sysctl net.ipv4.conf.lo.send_redirects 1 -> 0",
        "address 192.168.0.11/24 on eth0",
        "address 10.0.0.254/8 on eth1",
        "neighbour 10.0.0.1 on eth1 kept resolved",
    ]


def test_the_whole_of_ipv6(air: Any) -> None:
    """accept_ra is set before forwarding, so that router advertisements stay accepted."""
    lines = told(plan(air, config(SIX)))
    assert lines.pop(0) == "table ip6 paraglider-long: packets too long for a queue"
    assert lines.pop(0) == "table ip6 paraglider-openings: limits of new flows"
    assert lines[0].startswith("rules for IPv6: ")
    assert lines[1:] == [
        "sysctl net.ipv6.conf.eth0.accept_ra 1 -> 2",
        "sysctl net.ipv6.conf.eth1.accept_ra 1 -> 2",
        "sysctl net.ipv6.conf.all.forwarding 0 -> 1",
        "address 2001:db8::11/64 on eth0",
        "address fd00:10::fe/64 on eth1",
        "neighbour fd00:10::1 on eth1 kept resolved",
    ]


def test_planning_changes_nothing(air: Any) -> None:
    """A plan is data."""
    before = air.snapshot()
    plan(air, config(WEB, SIX))
    assert air.snapshot() == before


def test_a_family_that_is_not_asked_for_is_left_alone(air: Any) -> None:
    """-6 plans nothing of IPv4, and takes nothing of it back."""
    earlier = [
        AddressChange(4, "eth0", "192.168.0.99/24"),
        AddressChange(6, "eth0", "2001:db8::9/64"),
    ]
    steps = make_plan(config(WEB, SIX), frozenset({6}), (0,), 1, air.host, earlier)
    assert {step.change.family for step in steps} == {6}
    assert told(steps, "revert") == ["address 2001:db8::9/64 off eth0"]


def test_without_network_interfaces_stay_as_they_are(air: Any) -> None:
    """Rules and sysctls only."""
    lines = told(plan(air, config(WEB, network={})))
    assert not any(line.startswith(("address", "neighbour")) for line in lines)
    assert [line.split()[0] for line in lines[:3]] == ["table", "table", "rules"]


DSR = {**WEB, "forward": "dsr", "backends": ["10.0.0.1"]}


def test_the_whole_of_dsr(air: Any) -> None:
    """The VIP is no address of this host, and is attracted as the last step."""
    lines = told(plan(air, config(DSR)))
    assert lines[:2] == [
        "table ip paraglider-dsr: leases of flows",
        "table ip paraglider-openings: limits of new flows",
    ]
    assert lines[2].startswith("rules for IPv4: ")
    assert lines[-6:] == [
        "address 10.0.0.254/8 on eth1",
        "neighbour 10.0.0.1 on eth1 kept resolved",
        "route default via 10.0.0.1 dev eth1 table 0x521fa9ef onlink",
        "policy rule fwmark 0x521fa9ef/0xffbfffff lookup 0x521fa9ef priority 82",
        "route 192.168.0.11 dev eth1",
        "proxy: eth0 answers for 192.168.0.11",
    ]
    assert "sysctl net.ipv4.neigh.eth0.proxy_delay 8 -> 0" in lines
    assert not any(line.startswith("address 192.168.0.11") for line in lines)


def test_leases_are_kept_over_other_changes(air: Any) -> None:
    """An unchanged table stays; another backend changes it in place."""
    (step,) = (
        s
        for s in plan(air, config(DSR))
        if isinstance(s.change, OptionalTableChange) and s.change.table == "paraglider-dsr"
    )
    step.do(air.host)
    assert isinstance(step.change, OptionalTableChange)
    record = step.change.settled(air.host)
    again = plan(air, config({**DSR, "name": "other"}), [record])
    assert told(again, "keep")[0] == "table ip paraglider-dsr: leases of flows"
    changed = plan(air, config({**DSR, "backends": ["10.0.0.2"]}), [record])
    assert told(changed)[0] == "table ip paraglider-dsr: leases of flows in place of another"


def test_ways_that_are_there_are_kept(air: Any) -> None:
    """Ours with their record, those of others without."""
    steps = plan(air, config(DSR))
    for step in steps:
        if step.change.kind in ("route", "policy rule"):
            step.do(air.host)
    ours = [step.change for step in steps if step.change.kind == "route"]
    kept = [step for step in plan(air, config(DSR), ours) if step.action == "keep"]
    kinds = {step.change.kind: step.record for step in kept}
    assert kinds["route"] is not None
    assert kinds["policy rule"] is None
    assert "proxy" not in kinds


def test_a_proxy_needs_its_address_alone(air: Any) -> None:
    """No rules and no forwarding: its connections end here; the other family has its own."""
    proxied = {**WEB, "forward": "proxy"}
    lines = told(plan(air, config(proxied, SIX)))
    assert "address 192.168.0.11/24 on eth0" in lines
    assert not [line for line in lines if "IPv4" in line or "sysctl net.ipv4" in line]
    assert any(line.startswith("rules for IPv6: ") for line in lines)


def test_what_is_no_longer_wanted_goes_first(air: Any) -> None:
    """The VIP of an earlier file is taken back before anything is added."""
    steps = plan(air, config(WEB), [AddressChange(4, "eth0", "192.168.0.99/24")])
    assert steps[0].action == "revert"
    assert steps[0].describe() == "address 192.168.0.99/24 off eth0"


def test_a_vip_that_gets_another_prefix_is_replaced(air: Any) -> None:
    """The earlier address of ours is not taken for one that is there already."""
    air.netlink.add_address("eth0", ipaddress.ip_interface("192.168.0.11/16"))
    steps = plan(air, config(WEB), [AddressChange(4, "eth0", "192.168.0.11/16")])
    assert "address 192.168.0.11/16 off eth0" in told(steps, "revert")
    assert "address 192.168.0.11/24 on eth0" in told(steps, "apply")


def test_the_default_chroot_is_made(air: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is missing after every boot; a directory of the operator is not created."""
    monkeypatch.setattr(Path, "exists", lambda _: False)
    lines = told(plan(air, config(WEB, chroot="/var/run/empty")))
    assert lines[0] == "directory /var/run/empty"
    assert not any(line.startswith("directory") for line in told(plan(air, config(WEB))))


OFFLOAD = {**WEB, "forward": "offload"}


def test_offload_comes_with_its_table(air: Any) -> None:
    """First of all, ahead of the rules that lead packets to it; the rest is as for nat."""
    lines = told(plan(air, config(OFFLOAD)))
    assert lines[:2] == [
        "table ip paraglider: 2 backends",
        "table ip paraglider-openings: limits of new flows",
    ]
    assert lines[2].startswith("rules for IPv4: ")
    assert lines[3:] == told(plan(air, config(WEB)))[3:]


def test_a_table_that_is_no_longer_wanted(air: Any) -> None:
    """Back to nat: it goes, and its connections with it."""
    steps = plan(air, config(OFFLOAD))
    (table,) = (s.change for s in steps if isinstance(s.change, TableChange))
    table.apply(air.host)
    steps = plan(air, config(WEB), [table.settled(air.host)])
    assert told(steps, "revert") == ["table ip paraglider removed"]


def test_the_kernel_alone_needs_neither_queues_nor_directory(air: Any) -> None:
    """Without cores: its table and one rule; sysctls and addresses as usual."""
    wanted = kernel_only(config(WEB, chroot="/var/run/empty"))
    steps = make_plan(wanted, BOTH, (), 1, air.host, ())
    table, rules = steps[0].change, steps[1].change
    assert isinstance(table, TableChange)
    assert isinstance(rules, RulesChange)
    assert [row["name"] for row in table.served] == ["web"]
    assert "NFQUEUE" not in rules.text
    assert "numgen" in table.text
    assert told(steps)[2:] == told(plan(air, config(WEB)))[3:]

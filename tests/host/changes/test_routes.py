"""Routes, policy rules and proxies as changes: their effects, and those of their scripts."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.host.changes.base import Host
from paraglider.host.changes.routes import PolicyRuleChange, ProxyChange, RouteChange, RoutingChange
from paraglider.lab.namespace import Namespace

LINKS = ("eth0", "eth1")
MARK = 0x52000001
CHANGES: list[RoutingChange] = [
    RouteChange(4, "eth0", "192.168.0.11"),
    RouteChange(6, "eth0", "2001:db8::11"),
    RouteChange(4, "eth1", None, MARK, "10.0.0.1"),
    RouteChange(6, "eth1", None, MARK, "fd00:10::1"),
    PolicyRuleChange(4, MARK, 0xFFBFFFFF, MARK, 82),
    PolicyRuleChange(6, MARK, 0xFFBFFFFF, MARK, 82),
    ProxyChange(4, "eth0", "192.168.0.11"),
    ProxyChange(6, "eth0", "2001:db8::11"),
]


def held(change: RoutingChange, host: Host) -> bool:
    """Whether the host has it."""
    return change.value in host.routing.held(change.family, LINKS)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.describe("apply"))
def test_made_and_taken_back(air: Any, change: RoutingChange) -> None:
    """The kernel lists the entry after applying, and nothing after the revert."""
    before = air.snapshot()
    assert not held(change, air.host)
    change.apply(air.host)
    assert held(change, air.host)
    change.revert(air.host)
    assert not held(change, air.host)
    assert air.snapshot() == before


def test_each_is_another_thing() -> None:
    """Entries with any different field are different, so that an outdated one is removed as it was
    added.
    """
    others = [
        RouteChange(4, "eth1", "192.168.0.11"),
        PolicyRuleChange(4, MARK, 0xFFFFFFFF, MARK, 82),
        ProxyChange(4, "eth1", "192.168.0.11"),
    ]
    identities = {change.identity for change in (*CHANGES, *others)}
    assert len(identities) == len(CHANGES) + len(others)


@pytest.mark.root
def test_the_scripts_do_what_the_changes_do(inside: Namespace) -> None:
    """The dry run's script has the same effect as the change, and undo's script reverts it."""
    host = Host()
    for change in CHANGES:
        inside.run(["sh", "-e"], text=change.script(host))
        assert held(change, host), change.script(host)
        inside.run(["sh", "-e"], text=change.revert_script(host))
        assert not held(change, host)
        change.apply(host)
        inside.run(["sh", "-e"], text=change.revert_script(host))
        assert not held(change, host)


@pytest.mark.parametrize(
    ("change", "made", "gone"),
    [
        (CHANGES[0], "route 192.168.0.11 dev eth0", "route 192.168.0.11 dev eth0 removed"),
        (
            CHANGES[4],
            "policy rule fwmark 0x52000001/0xffbfffff lookup 0x52000001 priority 82",
            "priority 82 removed",
        ),
        (CHANGES[7], "proxy: eth0 answers for 2001:db8::11", "no longer answers"),
    ],
)
def test_what_is_reported(change: RoutingChange, made: str, gone: str) -> None:
    """One line for each action."""
    assert change.describe("apply") == change.describe("keep") == made
    assert gone in change.describe("revert")

"""The store: the configuration follows from facts, the version from changes."""

from __future__ import annotations

import ipaddress
from typing import Any

import structlog

from paraglider.config.model import Config
from paraglider.core.pool import Event, State
from paraglider.daemon.store.backends import AgentFact, Origin
from paraglider.daemon.store.store import Store
from paraglider.health.codes import Code

ONE, TWO, FOUND = "10.0.0.1", "10.0.0.2", "10.0.0.9"
BASE = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80}


def config(*backends: Any, **more: Any) -> Config:
    """One service."""
    service = {**BASE, "backends": list(backends), **more}
    return Config.model_validate({"failover": {"enabled": True}, "services": [service]})


def test_what_drains_is_a_fact_with_an_end() -> None:
    """It is not in the wanted configuration; the effective one has it until its last flow has
    ended.
    """
    store = Store(config(ONE, TWO), 1.0)
    store.apply(store.desired.replaced(config(ONE)), 2.0)
    assert store.desired.keys == {("web", TWO)}
    assert [b.weight for b in store.config.services[0].backends] == [1, 0]
    assert store.wanted == config(ONE)
    assert store.pools.find("web", TWO).state is State.DRAIN
    store.apply(store.desired.ended(store.desired.keys), 3.0)
    assert store.config == store.wanted == config(ONE)


def test_a_host_that_was_found_is_no_part_of_what_is_listed() -> None:
    """It has its own origin, and leaves when it no longer answers."""
    store = Store(config(ONE), 1.0)
    assert store.discovered.join(ipaddress.ip_address(FOUND), store.listed)
    wanted = store.discovered.into(config(ONE))
    store.apply(store.desired.replaced(wanted), 2.0)
    store.discovered.note_applied(config(ONE), wanted)
    assert store.listed == config(ONE)
    assert store.pools.find("web", FOUND).origin is Origin.DISCOVERY
    assert store.pools.find("web", ONE).origin is Origin.FILE


def test_the_origin_of_a_state_and_a_weight() -> None:
    """The last input that changed it; a repetition changes neither origin nor version."""
    store = Store(config(ONE, TWO), 1.0)
    pools, record = store.pools, store.pools.find("web", ONE)
    assert (record.state_by, record.weight_by) == (Origin.FILE, Origin.FILE)
    pools.set_weight(record, 7)
    pools.apply(record, Event.CHECK_FAILED, "refused", 2.0)
    assert (record.state_by, record.weight_by) == (Origin.HEALTH, Origin.OPERATOR)
    version = store.version
    pools.set_weight(record, 7)
    pools.apply(record, Event.CHECK_FAILED, "refused", 3.0)
    assert (store.version, record.since) == (version, 2.0)
    pools.apply(record, Event.SET_MAINT, "by hand", 4.0)
    assert record.state_by is Origin.OPERATOR
    assert store.version == version + 1


def test_changes_since_a_version() -> None:
    """Each backend once, in its newest state, after any number of changes."""
    store = Store(config(ONE, TWO), 1.0)
    pools = store.pools
    first, second = pools
    begun = store.version
    for weight in (5, 6, 7):
        pools.set_weight(first, weight)
    between = store.version
    pools.set_weight(second, 9)
    assert pools.changes(begun) == [first, second]
    assert pools.states(since=begun) == {"web": {ONE: ("ready", 7), TWO: ("ready", 9)}}
    assert pools.states(since=between) == {"web": {TWO: ("ready", 9)}}
    assert pools.changes(store.version) == []
    pools.set_weight(first, 8)
    assert pools.changes(between) == [second, first]


def test_what_an_agent_changes_is_logged_by_its_kind() -> None:
    """A state is a line, as any other; a weight, which may change every second, is for `-D`."""
    store = Store(config(ONE, agent={"port": 9999}), 1.0)
    record = store.pools.find("web", ONE)
    with structlog.testing.capture_logs() as lines:
        store.set_agent(record, AgentFact(300, "drain", True, Code.L7OK, "300% drain", 1.0), 1.0)
        store.set_agent(record, AgentFact(300, "drain", True, Code.L7OK, "again", 2.0), 2.0)
    told = [(line["log_level"], line["event"], line["by"]) for line in lines]
    assert told == [("debug", "weight changed", "agent"), ("info", "backend changed", "agent")]

"""The kernel's tables by states and weights, with a fake kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from paraglider.config.model import Config
from paraglider.core.pool import DATAGRAM_DRAIN
from paraglider.daemon import log
from paraglider.errors import PlatformError
from paraglider.forward.offload.reconcile import (
    FIRST_PAUSE,
    EndedConnections,
    KernelTables,
)
from paraglider.forward.services import States
from paraglider.netfilter.nft import Nft
from paraglider.netfilter.rules.marks import backend_marks

BACKENDS = ("10.0.0.1", "10.0.0.2")


class Table:
    """The states of backends, as the store has them."""

    def __init__(self) -> None:
        self.version = 1
        self._states: States = {}

    def put(self, states: States) -> None:
        """Others."""
        self.version += 1
        self._states = states

    def states(self, since: int = 0) -> States:
        """See ``BackendTable``."""
        assert since < self.version
        return self._states


class Air:
    """A kernel that accepts everything, with the services of one configuration."""

    def __init__(self, **changes: Any) -> None:
        service = {
            "name": "web", "vip": "192.168.0.11/24", "protocol": "any", "forward": "offload",
            "backends": [{"address": BACKENDS[0], "weight": 3}, BACKENDS[1]], **changes,
        }  # fmt: skip
        other = {"name": "nat", "vip": "192.168.0.12/24", "protocol": "tcp"}
        config = Config.model_validate({"services": [service, {**other, "backends": ["10.0.0.9"]}]})
        self.marks = backend_marks(config)["web"]
        self.loaded: list[str] = []
        self.refuses = self.slow = False
        self.waiting: list[Callable[[PlatformError | None], object]] = []
        self.config = config
        self.offloaded = self.tables()
        self.table: Any = Table()

    def tables(self, before: KernelTables | None = None) -> KernelTables:
        """The reconciler of this kernel."""
        return KernelTables(self.config, before, load=self.load, seed=lambda: 1, log=log.logger())

    def load(self, text: str, then: Callable[[PlatformError | None], object]) -> None:
        """A transaction of nft."""
        if self.slow:
            self.waiting.append(then)
            self.loaded.append(text)
            return
        if self.refuses:
            then(PlatformError("a table was refused by nft"))
            return
        self.loaded.append(text)
        then(None)

    def put(
        self, first: str, second: str = "ready", weight: int = 3, now: float = 1.0
    ) -> EndedConnections:
        """Set the states of the two backends; returns the connections that end."""
        states = {BACKENDS[0]: (first, weight), BACKENDS[1]: (second, 1)}
        self.table.put({"web": states, "nat": {"10.0.0.9": ("down", 1)}})
        self.offloaded.reconcile(self.table)
        return self.offloaded.tick(now)

    def shares(self) -> dict[int, int]:
        """Each backend's part of the hash of TCP, by mark, as last loaded."""
        rule = next((line for line in self.loaded[-1].splitlines() if "l4proto tcp" in line), "")
        found = {}
        for first, last, mark in re.findall(r"(\d+)(?:-(\d+))? : (0x[0-9a-f]+)", rule):
            found[int(mark, 16)] = int(last or first) - int(first) + 1
        return found


@pytest.fixture
def air() -> Air:
    """Two ready backends, loaded into the kernel."""
    made = Air()
    assert not made.offloaded.tick(0.0)
    return made


def test_the_hash_is_set_at_first(air: Air) -> None:
    """The table of an earlier daemon is replaced once; then nothing is sent."""
    assert len(air.loaded) == 1
    assert air.shares() == {air.marks[0]: 3, air.marks[1]: 1}
    assert not air.put("ready")
    assert len(air.loaded) == 1


@pytest.mark.parametrize("state", ["down", "drain", "maint"])
def test_backends_without_new_flows_leave_the_hash(air: Air, state: str) -> None:
    """For any reason; it returns with its weight."""
    air.put(state)
    assert air.shares() == {air.marks[1]: 1}
    air.put("ready", weight=7)
    assert air.shares() == {air.marks[0]: 7, air.marks[1]: 1}


def test_changes_are_sent_together(air: Air) -> None:
    """Many changes between two ticks are one transaction."""
    for state in ("down", "ready", "drain"):
        air.table.put({"web": {BACKENDS[0]: (state, 3)}})
        air.offloaded.reconcile(air.table)
    air.offloaded.tick(1.0)
    assert len(air.loaded) == 2


@pytest.mark.parametrize(
    ("on_down", "state", "lost"),
    [("reset", "down", True), ("keep", "down", False)],
)
def test_connections_of_the_lost_are_over(on_down: Any, state: str, lost: bool) -> None:
    """With `on_down: reset` those of a failed backend, once; with `keep` none."""
    air = Air(on_down=on_down)
    air.offloaded.tick(0.0)
    assert air.put(state) == EndedConnections((air.marks[0],) if lost else ())
    assert not air.put(state, now=2.0)


def test_datagrams_leave_what_takes_no_new_flows() -> None:
    """In maintenance at once, in a drain after a while; each is reported once."""
    air = Air()
    air.offloaded.tick(0.0)
    assert air.put("maint") == EndedConnections(passing=(air.marks[0],))
    assert not air.put("maint", now=2.0)
    assert not air.put("ready", now=3.0)
    assert not air.put("drain", now=4.0)
    assert air.offloaded.tick(4.0 + DATAGRAM_DRAIN) == EndedConnections(passing=(air.marks[0],))
    assert not air.offloaded.tick(9.0 + DATAGRAM_DRAIN)


def test_a_drain_that_is_overdue_ends_connections() -> None:
    """After `drain_timeout` seconds and not before."""
    air = Air(drain_timeout=10)
    air.offloaded.tick(0.0)
    assert not air.put("drain")
    assert not air.offloaded.tick(10.0)
    assert air.offloaded.tick(11.0) == EndedConnections((air.marks[0],))


def test_another_configuration_goes_on_where_one_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain keeps its start time, and lost backends are reported once; at the end the hash is
    that of the set-up.
    """
    air = Air(drain_timeout=10)
    air.offloaded.tick(0.0)
    assert not air.put("drain")
    for _ in range(2):
        air.offloaded = air.tables(air.offloaded)
    assert not air.put("drain", now=10.0)
    assert air.put("drain", now=11.0) == EndedConnections((air.marks[0],))
    air.offloaded = air.tables(air.offloaded)
    assert not air.put("drain", now=12.0)
    monkeypatch.setattr(Nft, "load", lambda _, text, _seconds: air.loaded.append(text))
    air.offloaded.close()
    assert air.shares() == {air.marks[0]: 3, air.marks[1]: 1}


def test_no_backend_is_left(air: Air) -> None:
    """With `reject` the hash is empty, so the host refuses; refused connections are deleted
    afterwards.
    """
    assert air.put("down", "down") == EndedConnections(tuple(sorted(air.marks)))
    assert air.shares() == {}
    assert air.put("down", "ready") == EndedConnections((), (("192.168.0.11", 1, 65535),))
    assert air.shares() == {air.marks[1]: 1}


def test_all_are_used_when_all_are_down() -> None:
    """With `use_all` the hash has all backends again, and no connection ends."""
    air = Air(all_down="use_all")
    air.offloaded.tick(0.0)
    assert air.put("down", "ready") == EndedConnections((air.marks[0],))
    assert not air.put("down", "down")
    assert air.shares() == {air.marks[0]: 3, air.marks[1]: 1}


def test_what_was_refused_is_tried_again(air: Air) -> None:
    """After a pause that doubles, with or without further changes."""
    air.refuses = True
    with structlog.testing.capture_logs() as lines:
        air.put("down", now=1.0)
        air.offloaded.tick(1.0 + FIRST_PAUSE)
    assert [line["after"] for line in lines] == [FIRST_PAUSE, 2 * FIRST_PAUSE]
    air.refuses = False
    before = len(air.loaded)
    now = 1.0 + FIRST_PAUSE
    air.put("down", "drain", now=now)
    assert len(air.loaded) == before
    assert air.offloaded.wait(now) == 2 * FIRST_PAUSE
    air.offloaded.tick(now + 2 * FIRST_PAUSE)
    assert air.shares() == {}


def test_a_slow_nft_gets_the_newest_state(air: Air) -> None:
    """One run at a time; later changes are loaded together after it."""
    air.slow = True
    for weight in (5, 6, 7):
        air.put("ready", weight=weight)
    assert len(air.waiting) == 1
    air.slow = False
    air.waiting.pop()(None)
    air.offloaded.tick(2.0)
    assert air.shares() == {air.marks[0]: 7, air.marks[1]: 1}
    assert len(air.loaded) == 3


def test_a_recreated_table_is_filled_again(air: Air) -> None:
    """The rules were flushed, and the set-up's own are back."""
    air.put("down")
    air.offloaded.put_back(4)
    air.offloaded.tick(2.0)
    assert len(air.loaded) == 3
    assert air.shares() == {air.marks[1]: 1}


def test_at_the_end_the_hash_is_the_set_ups(air: Air, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without checks all backends are in it; nft is run in this process by then."""
    monkeypatch.setattr(Nft, "load", lambda _, text, _seconds: air.loaded.append(text))
    air.put("down")
    air.offloaded.close()
    assert air.shares() == {air.marks[0]: 3, air.marks[1]: 1}


def test_connections_of_a_lost_backend_are_not_adopted() -> None:
    """Its answers begin none until it returns, from the load that is asked for before the deletion
    of its connections; those of one that drains do.
    """
    air = Air(strategy="maglev", seed=7, protocol="tcp", ports=80)
    air.offloaded.tick(0.0)
    excluded = f"adopting ct mark {{ 0x{air.marks[0]:08x} }} ct mark set 0x0 return"

    def excludes() -> bool:
        return excluded in air.loaded[-1]

    assert not excludes()
    assert air.put("down") == EndedConnections((air.marks[0],))
    assert excludes()
    air.put("ready", now=2.0)
    assert not excludes()
    air.put("drain", now=3.0)
    assert not excludes()

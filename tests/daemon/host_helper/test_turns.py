"""Turns of the host helper: kernel events are handled at once, everything else is polled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import pytest

from paraglider.daemon.host_helper.turns import POLL, HostTurns


class Parts:
    """Events, service and arrivals in one object that records the calls."""

    def __init__(self) -> None:
        self.fresh: set[str] = set()
        self.told: list[list[str]] = []
        self.polls = self.refreshes = self.reconciled = 0

    def collect(self) -> set[str]:
        """See ``HostEvents``."""
        return set(self.fresh)

    def poll(self) -> set[str]:
        """See ``HostEvents``."""
        self.polls += 1
        return {"filter"}

    def mark_changed(self, parts: Iterable[str]) -> None:
        """See ``HostService``."""
        self.told.append(list(parts))

    def reconcile_due(self) -> None:
        """See ``HostService``."""

    def announce_due(self, _now: float) -> None:
        """See ``Arrivals``."""

    def refresh(self, _now: float) -> None:
        """See ``Arrivals``."""
        self.refreshes += 1

    def reconcile(self) -> None:
        """See ``CarrierAttachment``."""
        self.reconciled += 1

    def wait(self, _now: float = 0.0) -> float:
        """Nothing is due."""
        return 60.0


class Addresses:
    """Counts how often they are read."""

    def __init__(self) -> None:
        self.read = 0

    def refresh(self) -> None:
        """See ``AddressReporter``."""
        self.read += 1


def test_news_and_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses and the carrier's interfaces are read after a change of links and every second,
    filters after a change only.
    """
    now = 100.0
    monkeypatch.setattr("paraglider.daemon.host_helper.turns.time.monotonic", lambda: now)
    parts = Parts()
    any_part, addresses = cast(Any, parts), Addresses()
    turns = HostTurns(any_part, any_part, any_part, any_part, cast(Any, addresses))
    turns.turn()
    assert (parts.told, parts.polls, parts.refreshes) == ([["filter"]], 1, 1)
    assert turns.pause() == POLL
    now += POLL / 2
    turns.turn()
    parts.fresh = {"links"}
    turns.turn()
    assert (parts.told[1:], parts.polls, parts.refreshes) == ([[], ["links"]], 1, 2)
    assert turns.pause() == POLL / 2
    now += POLL / 2
    turns.turn()
    assert (parts.told[3:], parts.polls, parts.refreshes) == ([["filter", "links"]], 2, 3)
    assert parts.reconciled == addresses.read == parts.refreshes

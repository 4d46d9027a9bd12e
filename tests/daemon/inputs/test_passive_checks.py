"""Failed client connections become hints: for counters that grew, with a
check, at a limited rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.daemon.inputs.passive_checks import INTERVAL, PassiveChecks
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter


class Worker:
    """A worker with the test's counters of backend 10.0.0.1."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"conns": 1}
        self.counters = Counters()
        self._writer = CounterWriter(self.counters, self)

    def figures(self) -> Mapping[str, int]:
        """See ``counters.CounterSource``."""
        return {}

    def traffic(self) -> Iterator[tuple[str, str, Mapping[str, int]]]:
        """See ``counters.CounterSource``."""
        yield "web", "10.0.0.1", self.numbers
        yield "web", "10.0.0.2", {"conns": 5}
        yield "unchecked", "10.0.0.1", self.numbers

    def count(self, **numbers: int) -> None:
        """More of something."""
        for name, more in numbers.items():
            self.numbers[name] = self.numbers.get(name, 0) + more
        self._writer.tick()


def config(**check: Any) -> Config:
    """Two services, one of them checked."""
    common = {"protocol": "tcp", "backends": ["10.0.0.1", "10.0.0.2"]}
    web = {"name": "web", "vip": "192.168.0.11/24", "ports": 80, **common, **check}
    unchecked = {"name": "unchecked", "vip": "192.168.0.12/24", **common}
    return Config.model_validate({"services": [web, unchecked]})


CHECKED = config(check={"type": "tcp"})


@pytest.mark.parametrize("name", ["refused", "timeouts", "unanswered"])
def test_what_has_grown_is_a_hint(name: str) -> None:
    """Once, for the backend, whichever worker counted."""
    workers = [Worker(), Worker()]
    hints = PassiveChecks()

    def failing(now: float) -> list[tuple[str, str]]:
        return list(hints.failing(CHECKED, (worker.counters.read() for worker in workers), now))

    for worker in workers:
        worker.count(conns=3)
    assert failing(1.0) == []
    workers[1].count(**{name: 2})
    assert failing(2.0) == [("web", "10.0.0.1")]
    assert failing(3.0) == []
    workers[0].count(**{name: 1})
    assert failing(4.0) == [("web", "10.0.0.1")]


def test_readings_have_an_interval() -> None:
    """At intervals, and never without checks."""
    hints = PassiveChecks()
    assert hints.wait(config(), 10.0) == inf
    assert hints.wait(CHECKED, 10.0) == 0.0
    assert list(hints.failing(CHECKED, [], 10.0)) == []
    assert hints.wait(CHECKED, 10.0) == INTERVAL
    assert hints.wait(CHECKED, 10.0 + INTERVAL) == 0.0

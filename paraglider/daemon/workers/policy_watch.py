"""What policies did wrong, into the log: once when one is benched, else once a minute.

Lives here: ``watch`` for a worker's ticks, ``counts`` for its last line, ``mark`` and ``begins``
for one that never returns. A policy is a strategy of the user's own; its guard
(``core.policy_guard``) counts, and logs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from paraglider.core.policy_guard import BENCH, PolicyGuard
from paraglider.core.service import VirtualService
from paraglider.daemon.shared_memory.counters import identity
from paraglider.daemon.shared_memory.heartbeat import Heartbeat

INTERVAL: Final = 60.0


def guards(services: Iterable[VirtualService]) -> list[tuple[str, PolicyGuard]]:
    """The guards among the strategies of ``services``, with the names of the services."""
    return [(s.name, s.strategy) for s in services if isinstance(s.strategy, PolicyGuard)]


def mark(services: Iterable[VirtualService], life: Heartbeat) -> None:
    """Have ``life`` tell which service's policy is called right now: one may never return."""
    for name, guard in guards(services):
        guard.called = life.deciding
        guard.number = identity(name)


def begins(life: Heartbeat) -> Callable[[str], None]:
    """Have ``life`` tell which service's policy is imported right now: for ``policies.begin``."""

    def name(service: str) -> None:
        life.deciding[0] = identity(service) if service else 0

    return name


def watch(services: Callable[[], Iterable[VirtualService]], logger: Any) -> Callable[[float], None]:
    """What to call with ``now`` every now and then; logs what is new since.

    ``services`` gives those that there are now.
    """
    watched: dict[PolicyGuard, _Watch] = {}

    def look(now: float) -> None:
        nonlocal watched
        found = guards(services())
        watched = {
            guard: watched.get(guard) or _Watch(name, guard, logger) for name, guard in found
        }
        for one in watched.values():
            one.look(now)

    return look


def counts(services: Iterable[VirtualService]) -> dict[str, int]:
    """What policies did wrong, over all ``services``, as `policy_...` and without zeros."""
    total: dict[str, int] = {}
    for _, guard in guards(services):
        for name, count in guard.counts().items():
            if count and name != "picked":
                total[f"policy_{name}"] = total.get(f"policy_{name}", 0) + count
    return total


class _Watch:
    """One guard, and what the log has of it already."""

    def __init__(self, service: str, guard: PolicyGuard, logger: Any) -> None:
        self._service = service
        self._guard = guard
        self._log = logger
        self._faults = self._benched = 0
        self._again = 0.0

    def look(self, now: float) -> None:
        guard = self._guard
        if guard.benched > self._benched:
            message = f"policy benched for {BENCH:.0f} s, rr picks"
        elif guard.faults > self._faults and now >= self._again:
            message = "policy at fault, rr picked where it gave no backend"
        else:
            return
        self._faults, self._benched, self._again = guard.faults, guard.benched, now + INTERVAL
        counters = {name: count for name, count in guard.counts().items() if count}
        self._log.warning(message, service=self._service, last=guard.error, **counters)

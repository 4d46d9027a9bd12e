"""Log lines about faults of policies: one when a policy is benched, otherwise one a minute.

Lives here: ``watch`` for a worker's ticks, ``counts`` for its last line, ``mark`` and
``mark_imports`` for a policy that never returns. A policy is a user's own strategy; its guard
(``core.policy_guard``) only counts.
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
    """Write into ``life`` which service's policy is being called, in case it never returns."""
    for name, guard in guards(services):
        guard.called = life.deciding
        guard.number = identity(name)


def mark_imports(life: Heartbeat) -> Callable[[str], None]:
    """Return a function for ``policies.import_all`` that writes into ``life`` whose policy is
    imported.
    """

    def name(service: str) -> None:
        life.deciding[0] = identity(service) if service else 0

    return name


def watch(services: Callable[[], Iterable[VirtualService]], logger: Any) -> Callable[[float], None]:
    """Return a function to be called with ``now`` periodically; it logs new faults.

    ``services`` returns the current services.
    """
    watched: dict[PolicyGuard, _FaultLog] = {}

    def poll(now: float) -> None:
        nonlocal watched
        found = guards(services())
        watched = {
            guard: watched.get(guard) or _FaultLog(name, guard, logger) for name, guard in found
        }
        for one in watched.values():
            one.poll(now)

    return poll


def counts(services: Iterable[VirtualService]) -> dict[str, int]:
    """Faults of the policies of all ``services``, as `policy_...`, without zeros."""
    total: dict[str, int] = {}
    for _, guard in guards(services):
        for name, count in guard.counts().items():
            if count and name != "picked":
                total[f"policy_{name}"] = total.get(f"policy_{name}", 0) + count
    return total


class _FaultLog:
    """One guard, and the faults of it that have been logged."""

    def __init__(self, service: str, guard: PolicyGuard, logger: Any) -> None:
        self._service = service
        self._guard = guard
        self._log = logger
        self._faults = self._benched = 0
        self._again = 0.0

    def poll(self, now: float) -> None:
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

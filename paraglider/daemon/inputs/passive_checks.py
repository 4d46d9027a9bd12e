"""Passive health: what clients meet brings a backend's next check forward.

Workers count, for each backend, connections that were refused, that nobody answered in time, and
openings that had to come again (``core.pool``, ``forward.proxy.counts``). Where a count has grown
since the last look, the checker is given a hint; what it makes of it is ``health.rise_and_fall``'s.

Lives here: ``PassiveChecks``.
Rules: nothing is asked of a worker, its counts are read where it writes them. One look a second
whatever clients send, and one hint a backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

from paraglider.config.model import Config
from paraglider.daemon.processes.counters import Sample
from paraglider.health.targets import Key

#: seconds between two looks
INTERVAL: Final = 1.0
#: what speaks against a backend
_AGAINST: Final = ("refused", "timeouts", "unanswered")


class PassiveChecks:
    """The counts as they were at the last look."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], int] = {}
        self._next = 0.0

    def wait(self, config: Config, now: float) -> float:
        """Seconds until the next look is due; where nothing is checked none ever is."""
        if not any(service.check is not None for service in config.services):
            return inf
        return max(0.0, self._next - now)

    def look(self, config: Config, samples: Iterable[Sample], now: float) -> Iterator[Key]:
        """The backends with a check whose connections failed since the last call."""
        self._next = now + INTERVAL
        read = list(samples)
        for service in config.services:
            if service.check is None:
                continue
            for backend in service.backends:
                key = service.name, backend.name
                rows = (sample.backend(*key) for sample in read)
                count = sum(row.get(name, 0) for row in rows for name in _AGAINST)
                before = self._before.get(key, 0)
                self._before[key] = count
                if count > before:
                    yield key

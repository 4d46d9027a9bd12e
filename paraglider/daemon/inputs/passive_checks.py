"""Passive health checks: failed connections of clients bring a backend's next check forward.

For each backend the workers count refused connections, timeouts, and SYNs that were repeated
(``core.pool``, ``forward.proxy.counts``). When a count has grown, the monitor is asked to check the
backend sooner (``health.rise_and_fall``).

Lives here: ``PassiveChecks``.
Rules: counters are read from shared memory, once a second, however many connections fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

from paraglider.config.model import Config
from paraglider.daemon.shared_memory.counters import Sample, identity
from paraglider.health.targets import Key

#: seconds between two looks
INTERVAL: Final = 1.0
#: what speaks against a backend
_AGAINST: Final = ("refused", "timeouts", "unanswered")


class PassiveChecks:
    """The counts as they were at the last look."""

    def __init__(self) -> None:
        self._before: Counter[int] = Counter()  # by ``counters.identity``
        self._next = 0.0

    def wait(self, config: Config, now: float) -> float:
        """Seconds until the next look is due; where nothing is checked none ever is."""
        if not any(service.check is not None for service in config.services):
            return inf
        return max(0.0, self._next - now)

    def failing(self, config: Config, samples: Iterable[Sample], now: float) -> Iterator[Key]:
        """The backends with a check whose connections failed since the last call."""
        self._next = now + INTERVAL
        before, counts = self._before, Counter[int]()
        for sample in samples:
            counts.update(sample.sums(_AGAINST))
        self._before = counts
        grown = {backend for backend, count in counts.items() if count > before[backend]}
        if not grown:
            return
        for service in config.services:
            for backend in service.backends if service.check is not None else ():
                key = service.name, backend.name
                if identity(*key) in grown:
                    yield key

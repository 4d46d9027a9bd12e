"""Passive health checks: failed client connections bring a backend's next check forward.

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

#: seconds between two comparisons
INTERVAL: Final = 1.0
#: counters of failed connections
_AGAINST: Final = ("refused", "timeouts", "unanswered")


class PassiveChecks:
    """Compares the counters with those of the last call."""

    def __init__(self) -> None:
        self._before: Counter[int] = Counter()  # by ``counters.identity``
        self._next = 0.0

    def wait(self, config: Config, now: float) -> float:
        """Seconds until the next comparison is due; infinite if no service is checked."""
        if not any(service.check is not None for service in config.services):
            return inf
        return max(0.0, self._next - now)

    def failing(self, config: Config, samples: Iterable[Sample], now: float) -> Iterator[Key]:
        """The checked backends whose connections failed since the last call."""
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

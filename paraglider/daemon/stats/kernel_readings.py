"""The host helper's readings of the kernel's tables and of conntrack, for the supervisor.

Reading thousands of counters takes long, and the supervisor never waits for it: it requests a
reading from the host helper every INTERVAL seconds, or sooner to show current counters, and uses
the last reading until the next has come.

Lives here: ``KernelReadings``.
Rules: at most one request is open. Counters that could not be read raise the ``OSError`` of the
reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Final

from paraglider.daemon.messages import CarrierReading, Reading
from paraglider.netfilter.connections import Fill
from paraglider.netfilter.nfnetlink import CounterValue

#: seconds between two periodic readings
INTERVAL: Final = 2.0
#: seconds for which a reading is recent enough for a request
AGE: Final = 0.5
#: and this many times the duration of a reading: half a second with 5,000 backends
SHARE: Final = 20.0
#: seconds that a request to show something waits for a new reading
TIMEOUT: Final = 1.0

Ask = Callable[[Callable[[Reading | None], object]], object]
"""Requests a reading, and calls back with it; None if the request failed."""


class KernelReadings:
    """The last reading; ``first`` was made before the daemon started."""

    def __init__(
        self, first: Reading | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._last = first or Reading()
        self._clock = clock
        self._read_at = -inf
        self._took = 0.0
        self._open = self._needed = False
        self._waiting: list[tuple[float, Callable[[], object]]] = []

    def when_new(self, done: Callable[[], object]) -> None:
        """Call ``done`` when the last reading is recent enough, within TIMEOUT seconds."""
        now = self._clock()
        if not self._needed or now < self._read_at + self._pause(AGE):
            done()
        else:
            self._waiting.append((now + TIMEOUT, done))

    def reconcile(self, ask: Ask, changed: Callable[[], object], *, needed: bool) -> float:
        """Request a reading by ``ask`` if due, and call ``changed`` after it; returns the seconds
        until the next turn. Unless ``needed``, no request waits.
        """
        now, self._needed = self._clock(), needed
        if not needed:
            self._end_waiting(inf)
            return inf
        due = self._read_at + self._pause(AGE if self._waiting else INTERVAL)
        if not self._open and now >= due:
            self._open = True

            def done(reading: Reading | None) -> None:
                self._open, self._read_at = False, self._clock()
                self._took = self._read_at - now
                if reading is not None:
                    self._last = reading
                    changed()
                self._end_waiting(inf)

            ask(done)
            due = self._read_at + self._pause(INTERVAL)
        self._end_waiting(now)
        ends = [deadline for deadline, _ in self._waiting]
        return max(0.0, min(ends + ([] if self._open else [due]), default=inf) - now)

    def tables(self, family: int) -> dict[str, int] | None:
        """As ``nfnetlink.table_counters``."""
        self._raise(family)
        return self._last.tables.get(family)

    def carried(self, family: int) -> Mapping[int, Mapping[str, CounterValue]]:
        """As ``nfnetlink.carried_counters``."""
        self._raise(family)
        return self._last.carried.get(family, {})

    def refused(self, family: int) -> dict[str, int] | None:
        """As ``readings.refused_counters``."""
        self._raise(family)
        return self._last.refused.get(family)

    def carrier(self) -> CarrierReading:
        """What BPF carried; empty without it."""
        return self._last.carrier or CarrierReading()

    def fill(self) -> Fill | None:
        """As ``connections.fill``."""
        return self._last.fill

    def _raise(self, family: int) -> None:
        if family in self._last.errors:
            raise OSError(self._last.errors[family])

    def _pause(self, pause: float) -> float:
        return max(pause, SHARE * self._took)

    def _end_waiting(self, now: float) -> None:
        """Continue the requests past their deadline at ``now``."""
        over = [done for deadline, done in self._waiting if deadline <= now]
        self._waiting = [each for each in self._waiting if each[0] > now]
        for done in over:
            done()

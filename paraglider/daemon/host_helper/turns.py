"""The turns of a process that keeps the host as it was set up: news of the kernel, and time.

Lives here: ``HostTurns``.
Rules: never waits; who calls it does, for ``pause`` seconds or for what was registered.
"""

from __future__ import annotations

import selectors
import time
from typing import Final

from paraglider.daemon.host_helper.arrivals import Arrivals
from paraglider.daemon.host_helper.service import HostService
from paraglider.host.host_events import HostEvents
from paraglider.host.reconcile import PARTS

#: seconds between two looks at what the kernel does not tell of
POLL: Final = 1.0


class HostTurns:
    """Has ``service`` and ``arrivals`` look at what ``events`` tell of."""

    def __init__(self, events: HostEvents, service: HostService, arrivals: Arrivals) -> None:
        self._events = events
        self._service = service
        self._arrivals = arrivals
        self._polled = 0.0

    def register(self, selector: selectors.BaseSelector) -> None:
        """Have ``selector`` wake up for news."""
        self._events.register(selector)

    def pause(self) -> float:
        """Seconds until there is something to do without news."""
        now = time.monotonic()
        polling = max(0.0, self._polled + POLL - now)
        return min(self._service.wait(), self._arrivals.wait(now), polling)

    def turn(self) -> None:
        """Hear what is new, and do what is due."""
        news = self._events.collect()
        now = time.monotonic()
        if now - self._polled >= POLL:
            self._polled = now
            news |= self._events.poll()
            self._arrivals.poll(now)
        elif "links" in news:
            self._arrivals.poll(now)
        self._service.news(part for part in PARTS if part in news)
        self._service.work()
        self._arrivals.work(time.monotonic())

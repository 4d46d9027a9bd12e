"""The turns of a process that keeps the host set up: kernel events and time.

Lives here: ``HostTurns``.
Rules: never waits; the caller does, for ``pause`` seconds or for the registered descriptors.
"""

from __future__ import annotations

import selectors
import time
from typing import Final

from paraglider.daemon.host_helper.arrivals import Arrivals
from paraglider.daemon.host_helper.service import HostService
from paraglider.host.host_events import HostEvents
from paraglider.host.reconcile import PARTS

#: seconds between two polls of what the kernel sends no events for
POLL: Final = 1.0


class HostTurns:
    """Runs ``service`` and ``arrivals`` by ``events`` and by time."""

    def __init__(self, events: HostEvents, service: HostService, arrivals: Arrivals) -> None:
        self._events = events
        self._service = service
        self._arrivals = arrivals
        self._polled = 0.0

    def register(self, selector: selectors.BaseSelector) -> None:
        """Register the event sockets with ``selector``."""
        self._events.register(selector)

    def pause(self) -> float:
        """Seconds until the next turn is due without events."""
        now = time.monotonic()
        polling = max(0.0, self._polled + POLL - now)
        return min(self._service.wait(), self._arrivals.wait(now), polling)

    def turn(self) -> None:
        """Read the events, and do what is due."""
        news = self._events.collect()
        now = time.monotonic()
        if now - self._polled >= POLL:
            self._polled = now
            news |= self._events.poll()
            self._arrivals.refresh(now)
        elif "links" in news:
            self._arrivals.refresh(now)
        self._service.news(part for part in PARTS if part in news)
        self._service.work()
        self._arrivals.work(time.monotonic())

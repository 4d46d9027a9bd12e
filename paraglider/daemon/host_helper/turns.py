"""The turns of a process that keeps the host set up: kernel events and time.

Lives here: ``HostTurns``.
Rules: never waits; the caller does, for ``pause`` seconds or for the registered descriptors.
"""

from __future__ import annotations

import selectors
import time
from typing import Final

from paraglider.daemon.host_helper.arrivals import Arrivals
from paraglider.daemon.host_helper.carrier import CarrierAttachment
from paraglider.daemon.host_helper.own_addresses import AddressReporter
from paraglider.daemon.host_helper.service import HostService
from paraglider.host.host_events import HostEvents
from paraglider.host.reconcile import PARTS

#: seconds between two polls of the state for which the kernel sends no events
POLL: Final = 1.0


class HostTurns:
    """Runs ``service``, ``arrivals``, and if there are any the ``carrier`` and ``addresses``, by
    ``events`` and by time.
    """

    def __init__(
        self,
        events: HostEvents,
        service: HostService,
        arrivals: Arrivals,
        carrier: CarrierAttachment | None = None,
        addresses: AddressReporter | None = None,
    ) -> None:
        self._events = events
        self._service = service
        self._arrivals = arrivals
        self._carrier = carrier
        self._addresses = addresses
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
        changed = self._events.collect()
        now = time.monotonic()
        polled = now - self._polled >= POLL
        if polled:
            self._polled = now
            changed |= self._events.poll()
        if polled or "links" in changed:
            self._arrivals.refresh(now)
            if self._carrier is not None:
                self._carrier.reconcile()
            if self._addresses is not None:
                self._addresses.refresh()
        self._service.mark_changed(part for part in PARTS if part in changed)
        self._service.reconcile_due()
        self._arrivals.announce_due(time.monotonic())

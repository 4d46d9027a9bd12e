"""Announces VIPs and gateway addresses that arrive on this host to its neighbours.

An address has arrived if the kernel has it and had not at the poll before: when the daemon starts,
after a reload, restored by the reconciler, moved here by VRRP, or when a link is up again.

Lives here: ``Arrivals``.
Rules: time is an argument. A failure to announce is logged once; the service continues.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from paraglider.config.model import Config
from paraglider.errors import ParagliderError, PlatformError
from paraglider.host.announce import Announcements, Announcer, addresses_of, held


class Arrivals:
    """Announces the addresses of ``config``; ``make`` opens the socket."""

    def __init__(
        self, config: Config, logger: Any, make: Callable[[], Announcer] = Announcer
    ) -> None:
        self._wanted = addresses_of(config)
        self._log = logger
        self._failing = False
        self._announcements: Announcements | None = None
        try:
            self._announcements = Announcements(make())
        except PlatformError as error:
            self._log.warning("VIPs not announced", why=str(error))

    def apply_config(self, config: Config) -> None:
        """Announce the addresses of ``config`` from now on."""
        self._wanted = addresses_of(config)

    def refresh(self, now: float) -> None:
        """Read which addresses the host has."""
        if self._announcements is not None:
            announcements = self._announcements
            self._try(lambda: announcements.update(held(self._wanted), now))

    def wait(self, now: float) -> float:
        """Seconds until ``announce_due`` has something to do."""
        return inf if self._announcements is None else self._announcements.wait(now)

    def announce_due(self, now: float) -> None:
        """Send the announcements that are due."""
        if self._announcements is not None:
            announcements = self._announcements
            self._try(lambda: announcements.announce(now))

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (ParagliderError, OSError) as error:
            if not self._failing:
                self._log.warning("VIPs not announced", why=str(error))
            self._failing = True
        else:
            self._failing = False

"""Has neighbours know of the VIPs and gateway addresses that come to this host.

What has come is what the kernel has and had not at the look before: when the daemon starts, after a
reload, put back by the reconciler or moved here by VRRP, and when a link is there again.

Lives here: ``Arrivals``.
Rules: time is an argument. A host that cannot announce is logged once, and serves.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from paraglider.config.model import Config
from paraglider.errors import ParagliderError, PlatformError
from paraglider.host.announce import Announcements, Announcer, addresses_of, held


class Arrivals:
    """Announces the addresses of ``config``; ``make`` opens the socket for it."""

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
        """Go on with the addresses of ``config``."""
        self._wanted = addresses_of(config)

    def poll(self, now: float) -> None:
        """See which addresses are here."""
        if self._announcements is not None:
            announcements = self._announcements
            self._try(lambda: announcements.update(held(self._wanted), now))

    def wait(self, now: float) -> float:
        """Seconds until ``work`` has something to do."""
        return inf if self._announcements is None else self._announcements.wait(now)

    def work(self, now: float) -> None:
        """Announce what is due."""
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

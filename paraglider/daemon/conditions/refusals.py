"""New flows that the kernel refuses before the workers' queues (``forward.openings``).

Lives here: ``Refusals``, the counts over all families, and the conditions while they grow.
Rules: runs after each reading of the tables. Without a table, or if it cannot be read, there are no
counts and no condition: the host helper restores a missing table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paraglider.config.model import Config
from paraglider.daemon.conditions.assessor import LATELY
from paraglider.daemon.conditions.table import Condition
from paraglider.forward import registry

_WHAT: Final = {"tcp": "connections", "udp": "UDP flows", "icmp": "pings"}


class Refusals:
    """The counters for the services of ``config`` whose new flows reach workers.

    ``counters`` returns the refused packets of a family by protocol; None without a table.
    """

    def __init__(
        self,
        config: Config,
        counters: Callable[[int], dict[str, int] | None],
    ) -> None:
        self._counters = counters
        self._seen: dict[int, dict[str, int]] = {}  # family -> protocol -> packets
        self._grew: dict[str, float] = {}  # protocol -> when it last grew
        self.apply_config(config)

    def apply_config(self, config: Config) -> None:
        """Use the services of ``config`` from now on."""
        self._families = sorted(
            {
                service.family
                for service in config.services
                if (part := registry.of(service).openings) is not None and not part.hashed
            }
        )
        self._rate = config.queue.openings_rate

    @property
    def families(self) -> list[int]:
        """The families with such counters."""
        return self._families

    @property
    def counts(self) -> dict[str, int]:
        """Packets refused so far, by protocol; empty if there are no such counters."""
        seen = [self._seen[family] for family in self._families if family in self._seen]
        return {
            f"refused_{protocol}": sum(counts.get(protocol, 0) for counts in seen)
            for protocol in (_WHAT if self._families else ())
        }

    def update(self, now: float) -> dict[str, Condition]:
        """Read the counters; returns the conditions."""
        for family in self._families:
            self._update(family, now)
        return {
            f"new {_WHAT[protocol]}": Condition(
                "degraded",
                f"more than {self._rate} a second for each worker (`queue.openings_rate`) from "
                "clients not known yet are dropped: a flood, or the rate is too low for new ones",
            )
            for protocol, at in sorted(self._grew.items())
            if now - at < LATELY
        }

    def _update(self, family: int, now: float) -> None:
        try:
            counts = self._counters(family)
        except OSError:
            return
        if counts is None:
            return
        before = self._seen.get(family)
        self._seen[family] = counts
        for protocol, count in counts.items():
            if before is not None and count > before.get(protocol, 0):
                self._grew[protocol] = now

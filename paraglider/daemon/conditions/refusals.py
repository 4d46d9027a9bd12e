"""What the kernel refuses of new flows ahead of the workers' queues (``forward.openings``).

Lives here: ``Refusals``, the counts over all families, and the conditions while they grow.
Rules: looks every few seconds; where there is no table, or the kernel does not tell, nothing is
known and nothing is wrong: a table that is missing is the reconciler's to put back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paraglider.config.model import Config
from paraglider.daemon.conditions.assessor import LATELY
from paraglider.daemon.conditions.table import Condition
from paraglider.daemon.stats.table_monitor import INTERVAL
from paraglider.forward import registry
from paraglider.forward.openings import REFUSED, TABLE
from paraglider.netfilter.nfnetlink import named_counters

_WHAT: Final = {"tcp": "connections", "udp": "UDP flows", "icmp": "pings"}


def refused_counters(family: int) -> dict[str, int] | None:
    """Packets of ``family`` that were dropped ahead of the queues, by what they would have opened;
    None when there is no such table.
    """
    found = named_counters(family, TABLE, REFUSED.values())
    return None if found is None else {what: found[name] for what, name in REFUSED.items()}


class Refusals:
    """The looks for the services of ``config``, as far as workers carry or decide about them."""

    def __init__(
        self,
        config: Config,
        counters: Callable[[int], dict[str, int] | None] = refused_counters,
    ) -> None:
        self._counters = counters
        self._seen: dict[int, dict[str, int]] = {}  # family -> protocol -> packets
        self._grew: dict[str, float] = {}  # protocol -> when it was last seen to
        self._next = 0.0
        self.follow(config)

    def follow(self, config: Config) -> None:
        """Look for the services of ``config`` from now on."""
        self._families = sorted(
            {
                service.family
                for service in config.services
                if (part := registry.of(service).openings) is not None and not part.hashed
            }
        )
        self._rate = config.queue.openings_rate

    @property
    def counts(self) -> dict[str, int]:
        """Packets refused so far, by what they would have opened; empty where nothing can be."""
        seen = [self._seen[family] for family in self._families if family in self._seen]
        return {
            f"refused_{protocol}": sum(counts.get(protocol, 0) for counts in seen)
            for protocol in (_WHAT if self._families else ())
        }

    def look(self, now: float) -> dict[str, Condition]:
        """Look, if it is time; what is wrong by what was seen last."""
        if now >= self._next:
            self._next = now + INTERVAL
            for family in self._families:
                self._look(family, now)
        return {
            f"new {_WHAT[protocol]}": Condition(
                "degraded",
                f"more than {self._rate} a second for each worker (`queue.openings_rate`) from "
                "clients not known yet are dropped: a flood, or more new clients than was thought",
            )
            for protocol, at in sorted(self._grew.items())
            if now - at < LATELY
        }

    def _look(self, family: int, now: float) -> None:
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

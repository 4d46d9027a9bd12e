"""What the kernel refuses of new flows ahead of the workers' queues (``forward.openings``).

Lives here: ``Refusals``, the counts over all families, and the conditions while they grow.
Rules: looks after each reading of the tables. Where there is no table, or it cannot be read,
nothing is known and nothing is wrong: the host helper puts a missing table back.
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
    """The looks for the services of ``config``, as far as workers carry or decide about them.

    ``counters`` has the packets of a family that were refused, by protocol; None without a table.
    """

    def __init__(
        self,
        config: Config,
        counters: Callable[[int], dict[str, int] | None],
    ) -> None:
        self._counters = counters
        self._seen: dict[int, dict[str, int]] = {}  # family -> protocol -> packets
        self._grew: dict[str, float] = {}  # protocol -> when it was last seen to
        self.apply_config(config)

    def apply_config(self, config: Config) -> None:
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
    def families(self) -> list[int]:
        """The families that have such counters."""
        return self._families

    @property
    def counts(self) -> dict[str, int]:
        """Packets refused so far, by what they would have opened; empty where nothing can be."""
        seen = [self._seen[family] for family in self._families if family in self._seen]
        return {
            f"refused_{protocol}": sum(counts.get(protocol, 0) for counts in seen)
            for protocol in (_WHAT if self._families else ())
        }

    def update(self, now: float) -> dict[str, Condition]:
        """Look at the counters; what is wrong by what was seen last."""
        for family in self._families:
            self._update(family, now)
        return {
            f"new {_WHAT[protocol]}": Condition(
                "degraded",
                f"more than {self._rate} a second for each worker (`queue.openings_rate`) from "
                "clients not known yet are dropped: a flood, or more new clients than was thought",
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

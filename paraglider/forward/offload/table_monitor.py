"""Logs what the kernel decided without a worker, and a full conntrack table, for offload services.

    no answer     first packets that no worker decided about were forwarded by the kernel's hash
    conntrack     its table is full, the kernel drops first packets

Rules: runs after each reading of the tables. A state is logged once when it begins and once when it
ends, a count at most once a minute. The host helper restores a missing table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from paraglider.netfilter.connections import Fill, fill
from paraglider.netfilter.nfnetlink import table_counters
from paraglider.netfilter.rules.nft import GONE, UNANSWERED

#: fill level of conntrack's table above which drops are attributed to a full table: many
#: connections may have ended between the drop and the reading
NEARLY_FULL: Final = 0.9
#: seconds between two lines about the same count
QUIET: Final = 60.0

_COUNTED: Final = {
    UNANSWERED: "first packets without a worker's answer went by the kernel's hash",
    GONE: "first packets for removed backends went by the kernel's hash",
}


class TableMonitor:
    """Monitors the tables of the offloaded services of ``families``."""

    def __init__(
        self,
        families: Iterable[int],
        logger: Any,
        *,
        counters: Callable[[int], dict[str, int] | None] = table_counters,
        full: Callable[[], Fill | None] = fill,
    ) -> None:
        self._log = logger
        self._counters = counters
        self._full = full
        self._counts: dict[int, dict[str, int]] = {}  # family -> as last logged
        self._again: dict[int, float] = {}  # family -> when counts may be logged again
        self._families = sorted(families)
        self._dropped: int | None = None
        self._dropping = False
        self._alone = False
        self._seen: dict[int, dict[str, int]] = {}  # family -> as last read
        self._filled: Fill | None = None

    @property
    def kernel(self) -> dict[str, int] | None:
        """The last reading: first packets that the kernel's hash decided, over all families, and
        how full conntrack's table is. None if nothing is offloaded.
        """
        if not self._families:
            return None
        counts = [self._seen.get(family, {}) for family in self._families]
        found = {
            "unanswered": sum(count.get(UNANSWERED, 0) for count in counts),
            "gone": sum(count.get(GONE, 0) for count in counts),
        }
        return found if self._filled is None else found | self._filled._asdict()

    def workers(self, alive: int) -> None:
        """Called with the number of running workers after each start and exit."""
        alone = not alive and bool(self._families)
        if alone and not self._alone:
            self._log.error("no worker alive: new flows of offload services go by kernel hash")
        elif alive and self._alone:
            self._log.info("workers alive again: they decide about new flows")
        self._alone = alone

    @property
    def families(self) -> list[int]:
        """The families whose tables are monitored."""
        return self._families

    def cover(self, families: Iterable[int]) -> None:
        """Monitor the tables of ``families`` from now on."""
        self._families = sorted(set(families))

    def update(self, now: float) -> None:
        """Evaluate a reading, if anything is offloaded."""
        if not self._families:
            return
        for family in self._families:
            try:
                self._compare_table(family, now)
            except OSError as error:
                self._log.error("offload table cannot be read", error=str(error))
        self._compare_conntrack()

    def _compare_table(self, family: int, now: float) -> None:
        counts = self._counters(family)
        if counts is None:
            return  # the host helper reports and restores it
        self._seen[family] = counts
        # Counts from before the first reading, or of a previous table, are not logged.
        before = self._counts.setdefault(family, counts)
        if any(counts[name] < before[name] for name in counts):
            before = self._counts[family] = dict.fromkeys(counts, 0)
        news = {name: counts[name] - before[name] for name in counts}
        if any(news.values()) and now >= self._again.get(family, 0.0):
            self._counts[family], self._again[family] = counts, now + QUIET
            for name, count in news.items():
                if count:
                    self._log.warning(_COUNTED[name], family=family, count=count)

    def _compare_conntrack(self) -> None:
        self._filled = found = self._full()
        if found is None:
            return
        before, self._dropped = self._dropped, found.dropped
        # The kernel counts other drops there too: two packets that open one connection at the same
        # time.
        near = found.held >= found.limit * NEARLY_FULL
        dropping = before is not None and found.dropped > before and near
        if dropping and not self._dropping:
            self._log.error(
                "conntrack's table is full: the kernel drops first packets",
                connections=found.held,
                limit=found.limit,
                dropped=found.dropped - (before or 0),
                remedy="raise net.netfilter.nf_conntrack_max",
            )
        elif self._dropping and not dropping and found.held < found.limit:
            self._log.info("conntrack's table has room again", connections=found.held)
        self._dropping = dropping or (self._dropping and found.held >= found.limit)

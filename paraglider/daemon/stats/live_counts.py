"""The memory for the counts of flows that the kernel carries, as the configuration needs it.

Lives here: ``LiveCounts``, of the controller.
Rules: memory that is too small for a configuration is replaced by larger; the processes that use
the old one have to restart.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.config.model import Config
from paraglider.daemon.processes.child import Child
from paraglider.daemon.workers.conntrack_counter import ConntrackCounterSpec
from paraglider.forward.offload.connection_counts import LiveFlows, counted_marks, listed_marks


class LiveCounts:
    """The counts of the conntrack counter: ``counted`` by events, ``listed`` by dumps; None if
    there are none.
    """

    def __init__(self, children: Iterable[Child] = ()) -> None:
        self.counted: LiveFlows | None = None
        self.listed: LiveFlows | None = None
        for child in children:
            if isinstance(child.spec, ConntrackCounterSpec):
                self.counted, self.listed = child.spec.live, child.spec.listed

    def read(self) -> dict[int, tuple[int, int]]:
        """By mark: live flows, and closed ones that conntrack remembers."""
        found: dict[int, tuple[int, int]] = {}
        for each in (self.listed, self.counted):
            if each is not None:
                closed = each.closed()
                found |= {mark: (live, closed[mark]) for mark, live in each.read().items()}
        return found

    def begin_anew(self, config: Config, workers: int) -> set[str]:
        """Make room for ``config``; returns the roles of the processes that have to restart."""
        renewed: set[str] = set()
        listed, wanted = listed_marks(config), counted_marks(config)
        if self.listed is not None and not listed <= self.listed.marks:
            self.listed = LiveFlows(listed, 0)
            renewed |= {"conntrack counter"}
        if self.counted is not None and not wanted <= self.counted.marks:
            self.counted = LiveFlows(wanted, workers)
            renewed |= {"conntrack counter", "worker"}
        return renewed

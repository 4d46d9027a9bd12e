"""The kernel's counters and refusals: read by the host helper, monitored and shown.

Lives here: ``KernelMonitor``, over the counters of offloaded flows, the offload tables, conntrack,
refused flows, the BPF carrier and the memory of live flows.
Rules: does not read the kernel itself; uses the last reading (``stats.kernel_readings``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from paraglider.config.model import Config
from paraglider.daemon.conditions.carrier import CarrierSwitch
from paraglider.daemon.conditions.refusals import Refusals
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.messages import Reading
from paraglider.daemon.processes.child import Child
from paraglider.daemon.stats.carried import CarriedCounters
from paraglider.daemon.stats.kernel_readings import KernelReadings
from paraglider.daemon.stats.live_counts import LiveCounts
from paraglider.daemon.stats.traffic import Samples, TrafficCounters
from paraglider.forward.offload.counters import KernelCounters
from paraglider.forward.offload.table_monitor import TableMonitor

#: has the host helper read the tables of families, and calls back with the reading
Read = Callable[[Iterable[int], Callable[[Reading | None], object]], object]


@dataclass(slots=True)
class KernelMonitor:
    """Monitors the kernel; a part that is None is not monitored."""

    tables: TableMonitor | None = None
    counters: KernelCounters | None = None
    refusals: Refusals | None = None
    readings: KernelReadings = field(default_factory=KernelReadings)
    live: LiveCounts = field(default_factory=LiveCounts)
    carrier: CarrierSwitch = field(default_factory=CarrierSwitch)
    carried: CarriedCounters | None = None

    def attach(self, processes: Iterable[Child]) -> None:
        """Set the processes, one of which may count live flows."""
        self.live = LiveCounts(processes)

    def reconcile(self, read: Read, conditions: Conditions) -> float:
        """Have the tables read if due, and report to ``conditions``; returns the seconds until the
        next turn.
        """
        families: set[int] = set()
        for part in (self.tables, self.refusals):
            families |= set() if part is None else set(part.families)
        return self.readings.reconcile(
            lambda then: read(sorted(families), then),
            lambda: self._changed(conditions),
            needed=bool(families) or self.carrier.able,
        )

    def _changed(self, conditions: Conditions) -> None:
        """Called with a new reading."""
        now = time.monotonic()
        if self.tables is not None:
            self.tables.update(now)
        if self.refusals is not None:
            conditions.report("openings", self.refusals.update(now))
        if self.counters is not None:
            self.counters.update(now)
        if self.carried is not None:
            self.carrier.read = self.readings.carrier()
            conditions.report("carrier", self.carrier.assess())
            self.carried.update(self.carrier.read)

    def apply_config(self, config: Config, workers: int) -> set[str]:
        """Monitor the services of ``config``; returns the roles of the processes that need other
        memory for it.
        """
        if self.counters is not None:
            self.counters.apply_config(config)
        if self.carried is not None:
            self.carried.apply_config(config)
        if self.tables is not None:
            self.tables.cover(s.family for s in config.services if s.method.conntracked)
        if self.refusals is not None:
            self.refusals.apply_config(config)
        return self.live.begin_anew(config, workers)

    def count_workers(self, changed: Child, processes: Iterable[Child]) -> None:
        """Count the running workers among ``processes``, after ``changed`` started or exited."""
        if self.tables is not None and changed.spec.role == "worker":
            self.tables.workers(sum(c.up for c in processes if c.spec.role == "worker"))

    def traffic(self, samples: Samples) -> TrafficCounters:
        """The counters of the workers, of conntrack and of BPF."""
        if self.counters is not None:
            self.counters.count(self.live.read())
        return TrafficCounters(samples, self.counters, self.carried)

    @property
    def read_at(self) -> float | None:
        """When the counters were last read (monotonic seconds); None if there are none."""
        return None if self.counters is None else self.counters.read_at

    @property
    def shown(self) -> dict[str, int] | None:
        """The kernel's own decisions and refusals, and how full conntrack is."""
        offloaded = self.tables.kernel if self.tables is not None else None
        refused = self.refusals.counts if self.refusals is not None else {}
        return {**(offloaded or {}), **refused} or None

"""Assesses the daemon from time to time: what is wrong is a condition (``conditions.table``).

Lives here: ``Assessing``.
Rules: runs in the supervisor; never waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from paraglider.daemon.conditions.assessor import Assessor
from paraglider.daemon.conditions.journals import JournalMonitor
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.conditions.unanswered import UnansweredOpenings
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.stats.traffic import samples
from paraglider.daemon.store.store import Store


class AssessedProcesses(Protocol):
    """What is needed of ``controller.processes.Processes``."""

    def active(self) -> list[Child]:
        """The processes that are not idle."""

    def replace(self, children: Iterable[Child]) -> None:
        """Restart ``children``, one at a time."""


class Assessing:
    """Assesses ``store``, the processes of ``group``, the counters of ``kernel`` and the internal
    errors in ``faults``; reports to ``conditions``.
    """

    def __init__(
        self,
        store: Store,
        conditions: Conditions,
        kernel: KernelMonitor,
        group: AssessedProcesses,
        faults: Faults,
    ) -> None:
        self._store = store
        self._kernel = kernel
        self._group = group
        self._faults = faults
        self._assessor = Assessor(conditions)
        self._journals = JournalMonitor(conditions)
        self._unanswered = UnansweredOpenings(conditions)

    def on_ready(self, child: Child) -> None:
        """Called when ``child`` is ready."""
        self._journals.on_ready(child)

    def assess(self) -> None:
        """Assess the services and the processes now."""
        self._assessor.services(self._store.config, self._store.pools)
        self._assessor.checks(self._store.config, self._store.pools)
        self._assessor.deciding(self._store.config, self._kernel.carrier)
        self._kernel.carrier.log_deciders(self._store.config.services)
        self._assessor.processes(self._group.active(), time.monotonic())

    def run(self, now: float) -> float:
        """Assess everything that is due; returns the seconds until the next time."""
        if not self._assessor.wait(now):
            self.assess()
            processes = self._group.active()
            self._assessor.workers(processes, samples(processes), now)
            self._assessor.faults(self._faults.last, now)
            self._group.replace(self._journals.check(processes))
        return self._assessor.wait(now)

    def compare_openings(self, now: float) -> float:
        """Compare openings and answers if that is due; returns the seconds until the next time."""
        if not self._unanswered.wait(now):
            traffic = self._kernel.traffic(samples(self._group.active()))
            read = now if self._kernel.read_at is None else self._kernel.read_at
            self._unanswered.update(self._store.config, self._store.pools, traffic, now, read)
        return self._unanswered.wait(now)

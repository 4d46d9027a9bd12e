"""Reloads the configuration file: reads it, counts the flows that it would end, applies it.

Lives here: ``Reloader``, ``FlowCounts``, how many live flows a service has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from paraglider.config.model import Config
from paraglider.config.steps import Steps, completed
from paraglider.daemon import log
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.controller.processes import SOON, Processes
from paraglider.daemon.controller.views import Loaded
from paraglider.daemon.inputs.own_addresses import OwnAddressInput
from paraglider.daemon.inputs.reload import FlowLoss, ReloadOutcome
from paraglider.daemon.inputs.reload_queue import NONE_ENDS, ReloadQueue
from paraglider.daemon.inputs.sources import SourceInput
from paraglider.daemon.ipc import Broadcasts
from paraglider.daemon.messages import WriteCounters
from paraglider.daemon.processes.child import Child
from paraglider.daemon.reconcile.host import HostRequests
from paraglider.daemon.settings import Read
from paraglider.daemon.stats.traffic import samples
from paraglider.daemon.store.store import Store
from paraglider.errors import PlatformError
from paraglider.host.file_watch import FilePoller
from paraglider.netfilter.rules.marks import backend_marks


@dataclass(slots=True)
class FlowCounts:
    """How many live flows the services of ``store`` have, by the workers and the kernel."""

    store: Store
    kernel: KernelMonitor
    requests: Broadcasts
    host: HostRequests
    processes: Callable[[], Iterable[Child]]
    carriers: Callable[[], list[int]]
    connections: Mapping[int, int] | None = None  # of the kernel, by mark

    def refresh(self, then: Callable[[], object]) -> None:
        """Refresh the counts of live flows; ``then`` is called when they are refreshed."""

        def counted(connections: Mapping[int, int] | None) -> None:
            self.connections = connections  # None: use the last counts
            then()

        def written(_: object) -> None:
            self.host.count(counted)

        until = time.monotonic() + SOON
        try:
            self.requests.request(self.carriers(), WriteCounters(), until, written)
        except PlatformError:  # too many requests are open: use the last counters
            written(None)

    def of(self, service: str) -> int:
        """The live flows of ``service`` at the last count."""
        marks = backend_marks(self.store.config).get(service, ())
        if marks and self.connections is not None:
            return sum(self.connections.get(mark, 0) for mark in marks)
        return self.kernel.traffic(samples(self.processes())).total(service)["flows"] or 0


class Applies(Protocol):
    """Applies a configuration."""

    def apply_config(
        self, config: Config, requested_by: str, again: Callable[[], object], ending: FlowLoss
    ) -> ReloadOutcome:
        """See ``apply_config``."""

    def planning(self, config: Config) -> Steps[None]:
        """Compare ``config`` with the store ahead of ``apply_config``, in steps."""

    def reloaded(self) -> None:
        """Called when the file has been applied."""


class Reloader:
    """Reads ``file`` by ``read``, and has ``controller`` apply it; ``queue`` runs one reload at a
    time. ``loaded`` is the result of the last one; ``digests`` are those of the file at the start.
    ``own`` follows the addresses of this host.
    """

    def __init__(
        self,
        controller: Applies,
        processes: Processes,
        sources: SourceInput,
        flows: FlowCounts,
        *,
        read: Callable[[], Steps[Read]],
        file: FilePoller,
        own: OwnAddressInput | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self._controller = controller
        self._processes = processes
        self._sources = sources
        self._flows = flows
        self._read = read
        self.file = file
        self._own = own
        self.loaded = Loaded(True, time.monotonic(), digests or {})
        self.queue = ReloadQueue(self)
        self._log: Any = log.logger()

    def read(self) -> Steps[Read]:
        """See ``reload_queue.ReloadSteps``."""
        self.loaded = Loaded(False, time.monotonic(), self.loaded.digests)
        self.file.mark_read()
        found = yield from self._read()
        for line in found.warnings:
            self._log.warning(line)
        if not self._processes.discovering():
            yield
            yield from self._controller.planning(found.config)
        return found

    def reload(
        self, requested_by: str, found: Read | None = None, ending: FlowLoss = NONE_ENDS
    ) -> ReloadOutcome:
        """See ``reload_queue.ReloadSteps``."""
        found = found or completed(self.read())
        discovering, config = self._processes.discovering(), found.config
        if discovering:
            config = self._sources.prepared(config, found.listed)
        change = self._controller.apply_config(config, requested_by, self.queue.advance, ending)
        self.loaded = Loaded(True, time.monotonic(), found.digests)
        if self._own is not None:
            self._own.note_applied(found)
        if discovering:
            self._sources.apply_config(found.config)
        self._controller.reloaded()
        for index in discovering:
            self._processes.send(index, self._sources.order())
        return change

    def watch(self, config: Config, now: float) -> float:
        """Reload the file if it has changed, and ``config`` is to follow it; returns the seconds
        until the next look.
        """
        if not config.watch:
            return inf
        if self.file.changed(now):
            self.queue.attempt("watch")
        return self.file.wait(now)

    def follow(self, now: float) -> float:
        """Apply the addresses of this host that the file names by their interface, if they have
        changed; returns the seconds until the next look.
        """
        if self._own is None:
            return inf
        if not self.queue.busy and (found := self._own.changed(now)) is not None:
            self.queue.attempt("addresses of this host", found=found)
        return self._own.wait(now)

    def flows_of(self, service: str) -> int:
        """See ``reload_queue.ReloadSteps``."""
        return self._flows.of(service)

    def report(self, then: Callable[[], object]) -> None:
        """See ``reload_queue.ReloadSteps``."""
        self._flows.refresh(then)

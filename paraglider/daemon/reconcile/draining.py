"""Removes draining backends when their last flow has ended.

The workers count their flows, or the host helper counts the kernel's connections.

Lives here: ``DrainReconciler``, ``without_flows``.
Rules: no backend is removed while a process that carries flows is starting: it may restore more
flows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, Final

from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.spec import CARRIERS
from paraglider.daemon.reconcile.host import HostPendingError, HostRequests
from paraglider.daemon.stats.traffic import TrafficCounters, samples
from paraglider.daemon.store.backends import Key
from paraglider.daemon.store.store import Desired, Store
from paraglider.errors import ParagliderError
from paraglider.netfilter.rules.marks import backend_marks

#: seconds between two counts of the flows of draining backends
PAUSE: Final = 2.0


class DrainReconciler:
    """Removes draining backends from ``store`` by ``apply`` (``controller.Controller.apply``);
    ``processes`` are all that are not idle, the host helper counts connections by ``requests``.
    """

    def __init__(
        self,
        store: Store,
        processes: Callable[[], Iterable[Child]],
        apply: Callable[[Desired, Callable[[], object]], object],
        requests: HostRequests,
    ) -> None:
        self._store = store
        self._processes = processes
        self._apply = apply
        self._requests = requests
        self._next = inf
        self._keys: frozenset[Key] = frozenset()  # draining backends of the last turn
        self._over: frozenset[Key] = frozenset()  # without flows, not removed yet
        self._log: Any = log.logger()

    def reconcile(self, now: float) -> float:
        """Count if due, and remove backends without flows; returns the seconds until the next
        count.
        """
        self._end()
        desired = self._store.desired
        if desired.keys != self._keys:
            self._keys = desired.keys
            self._next = now + PAUSE if self._keys else inf
        if now >= self._next:
            self._next = now + PAUSE
            self._count(desired)
        return max(0.0, self._next - now)

    def _count(self, desired: Desired) -> None:
        if self._carriers() is None:
            return
        names = {s.name for s in desired.config.services if s.method.conntracked}
        if any(service in names for service, _ in desired.keys):
            self._requests.count(self._counted)
        else:
            self._counted({})

    def _counted(self, marks: Mapping[int, int] | None) -> None:
        """The numbers of the kernel's connections by mark; None if unknown."""
        carriers = self._carriers()
        if marks is not None and carriers is not None:
            desired = self._store.desired
            traffic = TrafficCounters(samples(carriers))
            self._over = without_flows(desired.config, desired.keys, traffic, marks)
            self._end()

    def _carriers(self) -> list[Child] | None:
        """The processes that carry flows, None if one is starting."""
        carriers = [child for child in self._processes() if child.spec.role in CARRIERS]
        return carriers if all(child.up for child in carriers) else None

    def _end(self) -> None:
        """Remove the backends without flows."""
        desired = self._store.desired
        over = self._over & desired.keys
        if not over:
            return
        try:
            self._apply(desired.ended(over), self._end)
        except HostPendingError:
            return
        except (ParagliderError, OSError) as error:
            self._over = frozenset()
            self._log.error("draining backends: not removed, tried again", error=str(error))
            return
        self._over = frozenset()
        for service, backend in sorted(over):
            self._log.info("backend removed, its last flow ended", service=service, backend=backend)


def without_flows(
    config: Config, keys: frozenset[Key], traffic: TrafficCounters, connections: Mapping[int, int]
) -> frozenset[Key]:
    """The backends of ``keys`` without flows; ``connections`` are the kernel's, counted by mark."""
    marks = backend_marks(config)
    found = set()
    for service in config.services:
        for position, backend in enumerate(service.backends):
            key = (service.name, backend.name)
            if key not in keys:
                continue
            flows = (
                connections.get(marks[service.name][position], 0)
                if service.method.conntracked
                else traffic.of(*key)["flows"]
            )
            if flows == 0:  # None: no worker has counted
                found.add(key)
    return frozenset(found)

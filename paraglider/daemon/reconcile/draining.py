"""The hub's care for backends that left: when their last flow has ended, they are gone.

How many flows there are say the workers, or the kernel's connections, which the reconciler counts.

Lives here: ``DrainReconciler``.
Rules: while a process that carries flows is starting nobody is let go of: it may know of more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, Protocol

from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.spec import CARRIERS
from paraglider.daemon.reconcile.host import HostPendingError, HostRequests
from paraglider.daemon.stats.traffic import Traffic, samples
from paraglider.daemon.store.backends import Key
from paraglider.daemon.store.draining import without
from paraglider.errors import ParagliderError
from paraglider.netfilter.rules.marks import backend_marks

#: seconds between two looks whether they have flows yet
PAUSE: Final = 2.0


class Draining:
    """The backends that are left of an earlier configuration."""

    def __init__(self) -> None:
        self.keys: frozenset[Key] = frozenset()
        self._next = inf

    def put(self, keys: frozenset[Key], now: float) -> None:
        """These are left."""
        self.keys = keys
        self._next = now + PAUSE if keys else inf

    def due(self, now: float) -> bool:
        """Whether it is time to look after them; once every PAUSE."""
        if now < self._next:
            return False
        self._next = now + PAUSE
        return True

    def wait(self, now: float) -> float:
        """Seconds until the next look."""
        return max(0.0, self._next - now)

    def over(
        self, config: Config, traffic: Traffic, connections: Mapping[int, int]
    ) -> frozenset[Key]:
        """Those without a flow; ``connections`` are the kernel's, counted by mark."""
        marks = backend_marks(config)
        found = set()
        for service in config.services:
            for position, backend in enumerate(service.backends):
                key = (service.name, backend.name)
                if key not in self.keys:
                    continue
                flows = (
                    connections.get(marks[service.name][position], 0)
                    if service.forward == "offload"
                    else traffic.of(*key)["flows"]
                )
                if flows == 0:  # None: no worker knows
                    found.add(key)
        return frozenset(found)

    def offloaded(self, config: Config) -> bool:
        """Whether the kernel alone knows the flows of some."""
        names = {s.name for s in config.services if s.forward == "offload"}
        return any(service in names for service, _ in self.keys)


class Body(Protocol):
    """What is needed of the hub."""

    config: Config

    def processes(self) -> list[Child]:
        """All that are not idle."""

    def go_on_with(
        self, config: Config, leaving: frozenset[Key], again: Callable[[], object]
    ) -> object:
        """Go by ``config``; raises ``ParagliderError``."""


class DrainReconciler:
    """Care for the backends of ``hub`` that left."""

    def __init__(self, hub: Body, orders: HostRequests) -> None:
        self._hub = hub
        self._orders = orders
        self._leaving = Draining()
        self._over: frozenset[Key] = frozenset()  # without flows, and not let go of yet
        self._log: Any = log.logger()

    def put(self, keys: frozenset[Key], now: float) -> None:
        """These are left."""
        self._leaving.put(keys, now)

    def wait(self, now: float) -> float:
        """Seconds until the next look."""
        return self._leaving.wait(now)

    def look(self, now: float) -> None:
        """Look after them, if it is time."""
        self._let_go()
        if not self._leaving.due(now) or self._carriers() is None:
            return
        if self._leaving.offloaded(self._hub.config):
            self._orders.count(self._counted)
        else:
            self._counted({})

    def _counted(self, marks: Mapping[int, int] | None) -> None:
        """So many connections the kernel has, by mark; None where that is not known."""
        carriers = self._carriers()
        if marks is not None and carriers is not None:
            traffic = Traffic(samples(carriers))
            self._over = self._leaving.over(self._hub.config, traffic, marks)
            self._let_go()

    def _carriers(self) -> list[Child] | None:
        """The processes that carry flows, None where one is starting."""
        carriers = [child for child in self._hub.processes() if child.spec.role in CARRIERS]
        return carriers if all(child.serves for child in carriers) else None

    def _let_go(self) -> None:
        """Go on without those that left and have no flows."""
        over = self._over & self._leaving.keys
        if not over:
            return
        config = without(self._hub.config, over)
        try:
            self._hub.go_on_with(config, self._leaving.keys - over, self._let_go)
        except HostPendingError:
            return
        except (ParagliderError, OSError) as error:
            self._over = frozenset()
            self._log.error("backends that left stay for now", why=str(error))
            return
        self._over = frozenset()
        for service, backend in sorted(over):
            self._log.info("backend gone, with its last flow", service=service, backend=backend)

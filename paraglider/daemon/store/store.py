"""The desired state: which services and backends there are, and the state of each backend.

    file, dns    services and backends of the configuration file, and of the lists and names in the
                 DNS that it refers to
    discovery    hosts that failover found: backends until they no longer answer
    (draining)   backends that none of these has any more: until their last flow has ended
    operator     states and weights that were set by request
    health       results of checks

``Desired`` has what there is, and never changes: an input makes another one, the host is brought to
it, and then ``Store.apply`` makes it the state of the daemon. Workers, kernel tables and checks are
reconciled from the store, by its version.

Rules: pure but for the log; ``now`` is monotonic seconds. What is the same twice changes no
version, and is not logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paraglider.config.model import Config
from paraglider.core.pool import DOWN, Event
from paraglider.daemon import log
from paraglider.daemon.store.backends import BackendRecord, BackendTable, Key
from paraglider.daemon.store.discovered import DiscoveredHosts
from paraglider.daemon.store.draining import Draining, after, draining_of, keys_of, with_draining


@dataclass(frozen=True)
class Desired:
    """``wanted``: the services and backends of the file, the DNS and discovery; ``draining``: the
    backends that are none of these any more and may have flows.
    """

    wanted: Config
    draining: tuple[Draining, ...] = ()

    @cached_property
    def config(self) -> Config:
        """All of it as one configuration; what drains has weight 0."""
        return with_draining(self.wanted, self.draining)

    @cached_property
    def keys(self) -> frozenset[Key]:
        """The backends that drain."""
        return keys_of(self.draining)

    def replaced(self, wanted: Config) -> Desired:
        """``wanted`` in place of what is wanted now; what it lacks drains."""
        return Desired(wanted, draining_of(self.config, wanted))

    def ended(self, gone: frozenset[Key]) -> Desired:
        """The same when the last flows of ``gone``, which drain, have ended."""
        return Desired(self.wanted, after(self.draining, gone))


class Store:
    """The desired state, beginning with ``config``."""

    def __init__(self, config: Config, now: float) -> None:
        self.desired = Desired(config)
        self.discovered = DiscoveredHosts()
        self.pools = BackendTable(config, now)
        self._log: Any = log.logger()

    @property
    def config(self) -> Config:
        """All services and backends, also those that drain."""
        return self.desired.config

    @property
    def wanted(self) -> Config:
        """The services and backends that take new flows."""
        return self.desired.wanted

    @property
    def listed(self) -> Config:
        """Those of the file and the DNS."""
        return self.discovered.listed(self.wanted)

    @property
    def version(self) -> int:
        """Grows with each change."""
        return self.pools.version

    def apply(self, desired: Desired, now: float) -> None:
        """Go by ``desired`` from now on."""
        self.desired = desired
        self.pools.apply_config(desired.config, now, desired.keys, self.discovered)

    def move(self, record: BackendRecord, event: Event, why: str, now: float) -> None:
        """Change the state of ``record`` by ``event``, which may change nothing."""
        before = record.state
        if not self.pools.apply(record, event, why, now):
            return
        write = self._log.warning if record.state in DOWN else self._log.info
        write(
            "backend changed",
            service=record.service,
            backend=record.backend,
            state=record.state.value,
            before=before.value,
            by=record.state_by.value,
            why=why,
        )

    def weigh(self, record: BackendRecord, weight: int) -> None:
        """Give ``record`` another weight, until the file has another; raises ``OperatorError``."""
        before = record.weight
        self.pools.set_weight(record, weight)
        if record.weight != before:
            self._log.info(
                "weight changed",
                service=record.service,
                backend=record.backend,
                weight=weight,
                before=before,
            )

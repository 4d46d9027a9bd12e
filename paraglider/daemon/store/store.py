"""The desired state: which services and backends there are, and the state of each backend.

    file, dns    services and backends of the configuration file, and of the lists and names in the
                 DNS that it refers to
    discovery    hosts that failover discovered: backends until they no longer answer
    (draining)   backends that none of these lists any more: until their last flow has ended
    operator     states and weights set by request, and whether this balancer is drained
    health       results of checks
    agent        weights and states that backends ask for themselves

``Desired`` is immutable: an input makes a new one, the host is changed for it, and then
``Store.apply`` makes it the state of the daemon. Workers, kernel tables and checks are reconciled
from the store, by its version.

Rules: pure except for the log; ``now`` is monotonic seconds. Input that changes nothing changes no
version, and is not logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paraglider.config.model import Config
from paraglider.core.pool import DOWN, Event
from paraglider.daemon import log
from paraglider.daemon.store.backends import AgentFact, BackendRecord, BackendTable, Key, Origin
from paraglider.daemon.store.discovered import DiscoveredHosts
from paraglider.daemon.store.draining import Draining, after, draining_of, keys_of, with_draining
from paraglider.daemon.store.node import Node


@dataclass(frozen=True)
class Desired:
    """``wanted``: the services and backends of the file, the DNS and discovery; ``draining``: the
    removed backends that may have flows.
    """

    wanted: Config
    draining: tuple[Draining, ...] = ()

    @cached_property
    def config(self) -> Config:
        """Both as one configuration; draining backends have weight 0."""
        return with_draining(self.wanted, self.draining)

    @cached_property
    def keys(self) -> frozenset[Key]:
        """The keys of the draining backends."""
        return keys_of(self.draining)

    def replaced(self, wanted: Config) -> Desired:
        """Replace the wanted configuration by ``wanted``; backends that it lacks drain."""
        return Desired(wanted, draining_of(self.config, wanted))

    def ended(self, gone: frozenset[Key]) -> Desired:
        """The same without the draining backends ``gone``."""
        return Desired(self.wanted, after(self.draining, gone))


class Store:
    """The desired state, initially ``config`` and ``node``."""

    def __init__(self, config: Config, now: float, node: Node | None = None) -> None:
        self.desired = Desired(config)
        self.node = node or Node()
        self.discovered = DiscoveredHosts()
        self.pools = BackendTable(config, now)
        self._log: Any = log.logger()

    @property
    def config(self) -> Config:
        """All services and backends, draining ones included."""
        return self.desired.config

    @property
    def wanted(self) -> Config:
        """The services and backends that take new flows."""
        return self.desired.wanted

    @property
    def listed(self) -> Config:
        """The services and backends of the file and the DNS."""
        return self.discovered.listed(self.wanted)

    @property
    def version(self) -> int:
        """Grows with each change."""
        return self.pools.version

    def apply(self, desired: Desired, now: float) -> None:
        """Set ``desired`` as the desired state."""
        self.desired = desired
        self.pools.apply_config(desired.config, now, desired.keys, self.discovered)

    def move(
        self,
        record: BackendRecord,
        event: Event,
        why: str,
        now: float,
        origin: Origin | None = None,
    ) -> None:
        """Change the state of ``record`` by ``event``; it may stay the same. ``origin`` is needed
        if it does not follow from the event.
        """
        before = record.state
        if not self.pools.apply(record, event, why, now, origin):
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

    def set_weight(self, record: BackendRecord, weight: int) -> None:
        """Set the weight of ``record``, until its weight in the file changes; raises
        ``OperatorError``.
        """
        before = record.weight
        self.pools.set_weight(record, weight)
        self._log_weight(record, before)

    def set_agent(self, record: BackendRecord, fact: AgentFact, now: float) -> None:
        """Apply what the agent of ``record`` said, as far as no operator set something else."""
        before = record.weight
        event = self.pools.set_agent(record, fact)
        self._log_weight(record, before)
        if event is not None:
            self.move(record, event, f"agent: {fact.detail}", now, Origin.AGENT)

    def _log_weight(self, record: BackendRecord, before: int) -> None:
        if record.weight != before:
            # Agents that follow the load change it with every answer.
            agents = record.weight_by is Origin.AGENT
            write = self._log.debug if agents else self._log.info
            write(
                "weight changed",
                service=record.service,
                backend=record.backend,
                weight=record.weight,
                before=before,
                by=record.weight_by.value,
            )

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

Rules: pure; ``now`` is monotonic seconds. What is the same twice changes no version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from paraglider.config.model import Config
from paraglider.daemon.store.backends import BackendTable, Key
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
        self.pools.adopt(desired.config, now, desired.keys, self.discovered)

"""Tells the http process the health of each VIP that is announced, as soon as it changes.

The http process passes it on to its clients (`GET /v1/announce`), which is what `paraglider
announce` reads. It is told after a client has asked for the first time: everything at once, then
what has changed, and after BEAT seconds without a change that nothing has. So a client notices a
supervisor that hangs.

Lives here: ``AnnounceReconciler``, and ``VipTable``, the health of the VIPs.
Rules: level-triggered; one evaluation a turn of the loop, at most one in TICK seconds, whatever the
number of clients, and only of VIPs that may have changed. An http process that does not read is
sent nothing until it does, and then the newest state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Final

from paraglider.config.announce import AnnounceConfig
from paraglider.config.model import Config
from paraglider.config.types import IPAddress
from paraglider.daemon.conditions.health import NodeHealth, VipHealth
from paraglider.daemon.conditions.table import Conditions
from paraglider.daemon.messages import Message, VipNews
from paraglider.daemon.processes.child import Child
from paraglider.daemon.store.store import Store

#: seconds after which it is told that nothing has changed
BEAT: Final = 0.5
#: seconds between two evaluations: changes that come together are told together
TICK: Final = 0.02
#: seconds until an http process that does not read is tried again
RETRY: Final = 0.05


class VipTable:
    """The health of the announced VIPs of ``store``; ``fresh`` are those whose health has changed
    since somebody emptied it, ``loads`` grows when what the file says about announcing changes.
    """

    def __init__(self, store: Store, conditions: Conditions) -> None:
        self.health: dict[IPAddress, VipHealth] = {}
        self.fresh: set[IPAddress] = set()
        self.loads = 0
        self._store = store
        self._conditions = conditions
        self._basis: tuple[AnnounceConfig | None, tuple[IPAddress, ...]] | None = None
        self._wanted: Config | None = None
        self._vips: dict[str, IPAddress] = {}  # by service
        self._served: dict[IPAddress, dict[str, bool]] = {}
        self._node = NodeHealth(conditions, frozenset(), draining=False)
        self._seen = (-1, False)  # version of the conditions, and whether it is drained
        self._version = self._layout = -1

    @property
    def changed(self) -> bool:
        """Whether ``health`` may have changed since ``update``."""
        store, seen = self._store, (self._conditions.version, self._store.node.draining)
        return store.version != self._version or seen != self._seen

    def update(self) -> None:
        """Bring ``health`` up to date."""
        table, store = self._store.pools, self._store
        due: set[IPAddress] = set()
        if table.layout != self._layout:
            self._lay_out()
            due.update(self._served)
        else:
            names = {record.service for record in table.changes(self._version)}
            for name in names & self._vips.keys():
                due.add(self._vips[name])
                self._serve(name)
        seen = (self._conditions.version, store.node.draining)
        if seen != self._seen or table.layout != self._layout:
            services = frozenset(_object(service.name) for service in store.config.services)
            self._node = NodeHealth(self._conditions, services, draining=store.node.draining)
            due.update(self._served)
        self._seen, self._version, self._layout = seen, table.version, table.layout
        told = store.wanted.announce
        when = "any" if told is None else told.when
        for vip in due:
            before, after = self.health.get(vip), self._node.of_vip(self._served[vip], when)
            if before is None or _differ(before, after):
                self.health[vip] = after
                self.fresh.add(vip)

    def _lay_out(self) -> None:
        """Begin anew with another configuration."""
        wanted = self._store.wanted
        basis = (wanted.announce, wanted.announced)
        self.loads += basis != self._basis
        self._basis = basis
        self._served = {vip: {} for vip in wanted.announced}
        self._vips = {s.name: s.vip.ip for s in wanted.services if s.vip.ip in self._served}
        for name in self._vips:
            self._serve(name)
        self.health = {vip: one for vip, one in self.health.items() if vip in self._served}
        self.fresh &= self._served.keys()

    def _serve(self, name: str) -> None:
        takes = any(member.takes_flows for member in self._store.pools.of(name))
        self._served[self._vips[name]][_object(name)] = takes


class AnnounceReconciler:
    """Tells the process that ``http`` returns, by ``send``; ``assess`` brings the conditions of the
    processes up to date.
    """

    def __init__(
        self,
        table: VipTable,
        assess: Callable[[], object],
        http: Callable[[], Child | None],
        send: Callable[[int, Message], object],
    ) -> None:
        self._table = table
        self._assess = assess
        self._http = http
        self._send = send
        self._touched = False
        self._listener: tuple[int, int] | None = None  # number, and its starts
        self._loads = -1  # that it was told; -1: nothing
        self._evaluated = -inf
        self._spoke = -inf

    def subscribe(self) -> None:
        """A client of the http process asks for the health of the VIPs."""
        child = self._http()
        listener = None if child is None else (child.spec.index, child.starts)
        if listener != self._listener:
            self._listener, self._loads = listener, -1

    def touch(self) -> None:
        """A process has started or exited."""
        self._touched = True

    def now(self) -> Mapping[IPAddress, VipHealth]:
        """The health of each announced VIP, up to date."""
        self._table.update()
        return self._table.health

    def reconcile(self, now: float) -> float:
        """Tell what has changed; returns the seconds until the next turn is due."""
        child = self._http()
        if child is None or self._listener != (child.spec.index, child.starts):
            return inf  # a successor is told when a client asks it
        if child.pending:
            return RETRY
        if self._touched:
            self._touched = False
            self._assess()
        if self._table.changed or self._loads < 0:
            if now - self._evaluated < TICK:
                return self._evaluated + TICK - now
            self._evaluated = now
            self._table.update()
        table = self._table
        whole = self._loads != table.loads
        if table.fresh or whole or now - self._spoke >= BEAT:
            self._spoke, self._loads = now, table.loads
            vips = {
                str(vip): (one.announce, one.status, one.why)
                for vip, one in table.health.items()
                if whole or vip in table.fresh
            }
            table.fresh.clear()
            self._send(child.spec.index, VipNews(loads=table.loads if whole else None, vips=vips))
        return max(0.0, self._spoke + BEAT - now)


def _differ(before: VipHealth, after: VipHealth) -> bool:
    """Whether to tell of ``after``: not of other words about what does not matter to routers."""
    if before.announce and after.announce:
        return before.status != after.status
    return before != after


def _object(service: str) -> str:
    """As the conditions name it."""
    return f"service {service}"

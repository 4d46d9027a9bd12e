"""The tables by which the program decides: one for each service, from its strategy.

One worker writes them. The strategy computes the table from the states and weights in the service's
pool (``Strategy.kernel_table``). After a change, the next ``sync`` computes it again; for a
strategy that counts flows, also after flows were opened or have ended. Without a ready backend the
table is empty. A worker answers new flows then, and also those for which the picked backend is
lost. A table for which there is no room is tried again by the next ``sync``, since the region of
the table before it is free by then, and after that as soon as there is room.

Lives here: ``KernelDecisions``.
Rules: ``sync`` computes at most ``ENTRIES`` entries, but at least one table; other tables wait. A
table that the kernel has already is not written again. The table of a service for which the kernel
no longer decides is removed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from paraglider.bpf.decisions import Decisions
from paraglider.bpf.layout import (
    BY_CLIENT,
    BY_FLOW,
    BY_TURN,
    DIRECT,
    NO_ENTRIES,
    SERVICE,
    SERVICES,
    STEERED_BY_CLIENT,
    TICK_SHIFT,
)
from paraglider.config.deciding import kernel_decides
from paraglider.config.model import Config, Service
from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Backend
from paraglider.core.service import ALL_PORTS, VirtualService
from paraglider.core.strategies.base import KernelPick
from paraglider.core.translation import Translation
from paraglider.forward.bpf.entry import ticks_of
from paraglider.forward.bpf.slot_names import slot_name
from paraglider.forward.rule_parts import shares_chains
from paraglider.netfilter.rules.steering import steered_by_client

#: entries of tables that are computed in one ``sync``: some 5 ms
ENTRIES: Final = 16_384
#: seconds between two checks for floods, and for room
FLOOD_INTERVAL: Final = 1.0
#: seconds between two checks whether the maps have no flows, which reads all their buckets
ENTRIES_INTERVAL: Final = 10.0
#: how the kernel picks, by ``Strategy.kernel_pick``
KINDS: Final[dict[KernelPick | None, int]] = {"client": BY_CLIENT, "flow": BY_FLOW, "turn": BY_TURN}

#: the protocols for which the kernel decides, by their names in the configuration
_NUMBERS: Final = {"tcp": TCP, "udp": UDP}
#: the name of the decision without a table, by which a worker decides
_BY_WORKER: Final = b"a worker"

#: returns how many live flows all workers have to the backend of a translation
LiveFlows = Callable[[Translation], int]
#: returns whether no flow has an entry
NoEntries = Callable[[], bool]


class _DecidedService:
    """A service for which the kernel decides, and the ``index`` of its decision.

    ``turn`` is the next turn when the last table was written, ``live`` the flows of the backends at
    that time, if the strategy counts flows. ``changed``: the table must be written again. While
    ``held``, the service has no table. ``needed`` is the number of entries for which there was no
    room; ``unplaced``: the second try found no room either.
    """

    def __init__(self, service: VirtualService, index: int, turn: int) -> None:
        self.service = service
        self.index = index
        self.turn = turn
        self.live: tuple[int, ...] = ()
        self.changed = True
        self.held = False
        self.needed = 0
        self.unplaced = False


class _Placed(NamedTuple):
    """The services that have a decision, with its index, and the index by each key."""

    services: dict[VirtualService, int]
    keys: dict[bytes, int]


class KernelDecisions:
    """Writes ``decisions``. ``steering`` is the seed of the steering, ``live`` as ``LiveFlows``.
    Once there are ``no_entries``, the program does not ask for flows of services without them.

    ``unplaced`` has the names of the services for which there is no room, for their tables or
    their keys (an address with a port and a protocol): a worker decides for them. It is None while
    tables wait until no worker is busy. ``floods`` counts the checks, one a second for each
    service, that found more openings than get an entry.
    """

    def __init__(
        self,
        decisions: Decisions,
        steering: int,
        live: LiveFlows,
        no_entries: NoEntries = lambda: False,
    ) -> None:
        self._no_entries = no_entries
        self._entries_at = 0.0
        self._decisions = decisions
        self._steering = steering
        self._live = live
        self._bound = 0
        self._config: Config | None = None
        self._flags: dict[str, int] = {}  # of the decisions, by the names of the services
        self.floods = 0
        self._on = True
        self._flood_at = 0.0
        self._services: dict[VirtualService, _DecidedService] = {}
        self.unplaced: tuple[str, ...] | None = ()
        self._unplaced_changed = False
        self._without_place: list[str] = []

    def set_config(self, config: Config, workers: int) -> None:
        """Set steering and limits for ``workers`` by ``config``: entries are inserted at the rate
        at which unknown clients may open flows (``queue.openings_rate``). Raises ``OSError``.
        """
        self._config = config
        seconds, rate = (1 << TICK_SHIFT) / 1e9, config.queue.openings_rate * workers
        self._bound = max(1, int(rate * seconds)) if rate else 0xFFFFFFFF
        for family in (4, 6):
            services = [service for service in config.services if service.family == family]
            # Without workers the program looks for no decision.
            present = workers if any(map(kernel_decides, services)) else 0
            by_hash = [one.vip.ip.packed for one in services if one.decide == "hash"]
            self._decisions.set_steering(family, self._steering, present, by_hash)
        self._flags = {service.name: _flags(service, config) for service in config.services}

    def configure(self, services: Collection[VirtualService]) -> None:
        """Have the kernel decide for exactly ``services``; raises ``OSError``."""
        before, self._services = self._services, {}
        missing = {
            decided.service.name: decided.needed for decided in before.values() if decided.unplaced
        }
        self._without_place = []
        placed = self._place(services)
        for service, index in placed.services.items():
            turn = self._decisions.status(index).turn
            self._services[service] = decided = before.get(service) or _DecidedService(
                service, index, turn
            )
            decided.changed = True
            decided.held = not len(self._decisions.read(index))
            decided.needed = missing.get(service.name, 0)
            decided.unplaced = decided.needed > 0
            if service not in before:
                service.pool.watch(partial(self._states_changed, decided))
        self._entries_at = 0.0
        try:
            self._decisions.set_services(placed.keys)
        finally:  # a worker decides about a service whose keys the kernel refuses
            used = {*placed.services.values(), *placed.keys.values()}
            for name in self._decisions.names():
                unused = self._decisions.claim(name)
                if unused is not None and unused not in used:
                    self._decisions.release(unused)
            self._update_unplaced()

    def _place(self, services: Collection[VirtualService]) -> _Placed:
        """Decisions and keys for ``services``, as far as there is room. A service with all ports
        comes last, and only if the keys of its exceptions have room too.
        """
        placed = _Placed({}, {})
        exceptions = self._exceptions({each.vip for each in services if _has_all_ports(each)})
        for service in sorted(services, key=_has_all_ports):
            index = self._decisions.claim(slot_name(service.name, b"decision"))
            ports = ((0, 0),) if _has_all_ports(service) else service.ports
            keys = dict.fromkeys(_service_keys(service.vip, service.protocols, ports), index or 0)
            if _has_all_ports(service):
                others = exceptions.get(service.vip, set()) - placed.keys.keys()
                if others:
                    keys = dict.fromkeys(others, self._decisions.claim(_BY_WORKER) or 0) | keys
            if index is None or len(placed.keys) + len(keys) > SERVICES:
                self._without_place.append(service.name)
            else:
                placed.services[service] = index
                placed.keys.update(keys)
        return placed

    def enable(self, on: bool) -> None:
        """Have the kernel decide (``on``) as soon as no worker is busy, or not at all."""
        self._on = on
        for decided in self._services.values():
            decided.held = decided.changed = True
            decided.needed, decided.unplaced = 0, False
            self._decisions.clear(decided.index)
            self._decisions.set_without_flows(decided.index, False)
        self._entries_at = 0.0
        self._update_unplaced()

    def refresh(self) -> None:
        """Write all tables again with the next ``sync``s."""
        for decided in self._services.values():
            decided.changed = True

    def sync(self, now: float, *, busy: bool = False) -> None:
        """Write the tables that have changed; raises ``OSError``. A service without a table gets
        one when no worker is ``busy`` inserting the entries of its flows.
        """
        if now >= self._flood_at:
            self._flood_at = now + FLOOD_INTERVAL
            self._count_floods(now)
            self._retry_unplaced()
        self._write_changed(busy=busy)
        if self._unplaced_changed:
            self._update_unplaced()
        if now >= self._entries_at and not self.waiting:
            self._entries_at = now + ENTRIES_INTERVAL
            self._skip_flows()

    def _skip_flows(self) -> None:
        """Have the program skip its maps of flows for services whose flows get no entries, once no
        flow has one: a service may have had flows before it was decided by hash, or while the
        carrier was off.
        """
        by_hash = [
            decided.index
            for decided in self._services.values()
            if self._flags.get(decided.service.name, 0) & NO_ENTRIES
            and not self._decisions.without_flows(decided.index)
        ]
        if by_hash and self._no_entries():
            for index in by_hash:
                self._decisions.set_without_flows(index, True)

    @property
    def waiting(self) -> bool:
        """Whether a table waits to be written."""
        return any(decided.held or decided.changed for decided in self._services.values())

    def _write_changed(self, *, busy: bool) -> None:
        """Write the tables that have changed, until ``ENTRIES`` is reached."""
        room = ENTRIES
        for decided in list(self._services.values()):
            if decided.held:
                if busy or not self._on:
                    continue
                decided.held, self._unplaced_changed = False, True
            if decided.changed or (
                decided.service.strategy.counts_flows and self._flows_changed(decided)
            ):
                room -= self._write(decided)
                # The others are first the next time.
                self._services[decided.service] = self._services.pop(decided.service)
                if room <= 0:
                    return

    def _update_unplaced(self) -> None:
        self._unplaced_changed = False
        decided = self._services.values()
        if not self._on:
            self.unplaced = ()
        elif any(one.held for one in decided):
            self.unplaced = None
        else:
            names = [one.service.name for one in decided if one.unplaced]
            self.unplaced = tuple(sorted(self._without_place + names))

    def _retry_unplaced(self) -> None:
        """Mark the unplaced tables that fit now, so that they are written."""
        waiting = [decided for decided in self._services.values() if decided.unplaced]
        room = self._decisions.largest_region() if waiting else 0
        for decided in waiting:
            if decided.needed <= room:
                decided.changed = True
                room -= decided.needed

    def _count_floods(self, now: float) -> None:
        """Count the services that had more openings than get an entry since the last check."""
        since = ticks_of(now - FLOOD_INTERVAL)
        for decided in self._services.values():
            status = self._decisions.status(decided.index)
            above = status.tick >= since and status.opened > self._bound
            self.floods += above or status.stateless >= max(since, 1)

    def _exceptions(self, vips: Container[bytes]) -> dict[bytes, set[bytes]]:
        """By VIP, of those in ``vips``, the keys of all its services that have not all ports. Those
        for which the kernel does not decide are exceptions of one that has: a worker decides.
        """
        found: dict[bytes, set[bytes]] = {}
        for service in self._config.services if self._config is not None else ():
            vip = service.vip.ip.packed
            if vip in vips and not service.all_ports:
                protocols = [_NUMBERS[name] for name in service.protocols]
                ports = [(each.first, each.last) for each in service.ports]
                found.setdefault(vip, set()).update(_service_keys(vip, protocols, ports))
        return found

    @staticmethod
    def _states_changed(decided: _DecidedService, _ready: tuple[Backend, ...]) -> None:
        decided.changed = True

    def _flows_changed(self, decided: _DecidedService) -> bool:
        """Whether flows of the service were opened or have ended since its last table."""
        return (
            self._decisions.status(decided.index).turn != decided.turn
            or tuple(self._live_flows(decided.service)) != decided.live
        )

    def _live_flows(self, service: VirtualService) -> Iterator[int]:
        translations = service.translations
        return (self._live(translations[backend]) for backend in service.pool.ready)

    def _write(self, decided: _DecidedService) -> int:
        """Write the table of a service; returns the number of its entries."""
        service, decisions, index = decided.service, self._decisions, decided.index
        strategy, translations = service.strategy, service.translations
        decided.changed = False
        turn = decisions.status(index).turn
        table = strategy.kernel_table(
            lambda backend: self._live(translations[backend]), turn - decided.turn & 0xFFFFFFFF
        )
        slots = [translations[backend].slot for backend in table.backends]
        entries = array("H", [slots[entry] for entry in table.entries])
        if strategy.counts_flows and entries:
            # The first entry is the next turn's.
            decided.live = tuple(self._live_flows(service))
            start = turn % len(entries)
            entries = entries[-start:] + entries[:-start] if start else entries
        decided.turn = turn
        flags = self._flags.get(service.name, 0)
        decisions.configure(index, KINDS[strategy.kernel_pick], table.hash_key, self._bound, flags)
        fits = decisions.write(index, entries) or not entries
        unplaced = not fits and decided.needed > 0
        self._unplaced_changed = self._unplaced_changed or unplaced != decided.unplaced
        decided.unplaced = unplaced
        decided.changed = not fits and not decided.unplaced
        decided.needed = 0 if fits else len(entries)
        return max(len(entries), len(slots))


def _flags(service: Service, config: Config) -> int:
    """The flags of the decision of ``service``."""
    shared = shares_chains(service.method)
    steered = tuple(
        other
        for other in config.services
        if other.family == service.family
        and (shares_chains(other.method) if shared else other.method is service.method)
    )
    return (
        (DIRECT if service.answers == "direct" else 0)
        | (NO_ENTRIES if service.decide == "hash" else 0)
        | (STEERED_BY_CLIENT if steered_by_client(steered) else 0)
    )


def _has_all_ports(service: VirtualService) -> bool:
    return service.ports == ALL_PORTS


def _service_keys(
    vip: bytes, protocols: Iterable[int], ports: Iterable[tuple[int, int]]
) -> Iterator[bytes]:
    """The keys (``layout.SERVICE``) of a service with ranges of ``ports``."""
    spans = tuple(ports)
    for protocol in protocols:
        if protocol in _NUMBERS.values():
            for first, last in spans:
                for port in range(first, last + 1):
                    yield SERVICE.pack(
                        vip, port.to_bytes(2, "big"), protocol, 4 + 2 * (len(vip) > 4)
                    )

"""The packet path of one worker: combines the datapaths of its services' methods.

Lives here: ``build`` and ``WorkerDatapath``, which a worker's loop uses.
Rules: methods come from the registry only. Methods whose VIPs are addresses of this host share the
VIPs and one balancer; of these the method with a flow table gets every packet, and calls the others
for first packets of their services. A VIP that only the backends have belongs to one method
(``config.check_shared``), so the address determines the method.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace

from paraglider.config.model import Config
from paraglider.core.balancer import Balancer
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.core.tracing import Decision, TracingBalancer
from paraglider.core.translation import Translation
from paraglider.core.verdict import REASON_NAMES
from paraglider.errors import PlatformError
from paraglider.forward.base import ForwardMethod
from paraglider.forward.bpf.context import BpfResources, open_context
from paraglider.forward.datapath import (
    Built,
    DatapathContext,
    Decide,
    Handle,
    LiveFlows,
    PacketOutput,
)
from paraglider.forward.flows import FlowView
from paraglider.forward.registry import methods
from paraglider.forward.services import Previous, States, apply_states, make_services

#: called with the decision about a new flow
OnDecision = Callable[[Decision], None]


class _Group:
    """The methods that share VIPs, with one balancer over their services.

    ``built`` has the datapath of each method by its name; the last of them, ``entry``, gets the
    packets.
    """

    def __init__(
        self,
        members: Sequence[ForwardMethod],
        services: Sequence[VirtualService],
        place: DatapathContext,
    ) -> None:
        self.members = tuple(members)
        self.balancer = place.balancer
        self.built: dict[str, Built] = {}
        for method in sorted(members, key=lambda each: each.journalled):
            others = _decider(dict(self.built))
            built = method.datapath(replace(place, others=others))
            self.built[method.name] = self.entry = built
        self.configure(place.config, services)

    def configure(self, config: Config, services: Sequence[VirtualService]) -> None:
        """Use ``services``, those of ``config`` with these methods."""
        self.balancer.services = ServiceMap(services)
        for name, built in self.built.items():
            built.configure(config, [service for service in services if service.method == name])

    def trace(self, on_decision: OnDecision) -> None:
        """See ``WorkerDatapath``."""
        balancer = self.balancer = TracingBalancer(self.balancer.services)
        for built in self.built.values():
            built.datapath.balancer = balancer
            built.datapath.opened = lambda *flow: on_decision(balancer.decision_on(*flow))


class WorkerDatapath:
    """``handle`` returns a verdict for a packet (``forward.datapath.Datapath``).

    ``head`` is the number of bytes of a packet that it needs, None for all (``long_tables``);
    ``whole``: it needs all of every packet. Of methods with a queue of their own, for which the
    kernel splits packets, neither speaks; ``splits``: there are some.
    """

    def __init__(
        self,
        config: Config,
        worker: int,
        now: float,
        registry: Registry,
        live: LiveFlows | None,
        resources: BpfResources | None,
        output: PacketOutput | None,
    ) -> None:
        present = {service.forward for service in config.services}
        # A method without a flow table costs nothing, and may get services later.
        used = [m for m in methods() if m.queued and (m.name in present or not m.journalled)]
        shared = [method for method in used if method.owns_vip]
        bpf = None
        if resources is not None:
            bpf = open_context(resources, worker)
            bpf.configure(config)
        self._bpf = bpf
        self._groups: list[_Group] = []
        for members in (shared, *([method] for method in used if not method.owns_vip)):
            services = make_services(config, members.__contains__, worker, registry)
            balancer = Balancer(ServiceMap(services))
            place = DatapathContext(
                config, now, balancer, live=live, worker=worker, bpf=bpf, output=output
            )
            self._groups.append(_Group(members, services, place))
        self._datapaths = {
            name: built.datapath for group in self._groups for name, built in group.built.items()
        }
        merged = [method for method in used if method.merged]
        heads = [method.head for method in merged]
        self.head = None if None in heads else max(head for head in heads if head is not None)
        self.whole = any(method.head is None and not method.long_table for method in merged)
        self.splits = len(merged) < len(used)
        self._vips: list[set[bytes]] = [set() for _ in self._groups]
        self._names: dict[Translation, str] = {}
        self.services: tuple[VirtualService, ...] = ()
        self._refresh()
        self.handle: Handle = self._handle()

    def _handle(self) -> Handle:
        """The packet handler of all groups; a group's own handler if only one has services."""
        busy = [group for group in self._groups if group.balancer.services.services]
        handle: Handle = (busy[0] if len(busy) == 1 else self._groups[0]).entry.datapath.handle
        if len(busy) == 1:
            return handle
        for group, vips in zip(self._groups[1:], self._vips[1:], strict=True):
            if group in busy:
                handle = _by_vip(group.entry.datapath.handle, vips, handle)
        return handle

    def apply_config(self, config: Config, before: Config, worker: int, registry: Registry) -> None:
        """Use ``config`` in place of ``before``: flows keep their backends.

        Both must be of one kind (``kind_of``); the other arguments are those of ``build``.
        """
        for table in self.tables.values():
            if table.unread is not None:  # its flows have the backends of ``before``
                table.unread.finish()
        previous = Previous.of(before, self.services)
        if self._bpf is not None:
            self._bpf.configure(config)
        for group in self._groups:
            chosen = group.members.__contains__
            group.configure(config, make_services(config, chosen, worker, registry, previous))
        self._refresh()

    def _refresh(self) -> None:
        """Update the services from the groups after a change."""
        before, self.services = self.services, ()
        for group, vips in zip(self._groups, self._vips, strict=True):
            services = group.balancer.services.services
            self.services += services
            vips.clear()
            vips.update(service.vip for service in services)
        self._affinities = [s.affinity for s in self.services if s.affinity is not None]
        # Flows to removed backends are still listed by the name of their service.
        self._names = {t: name for t, name in self._names.items() if t.backend.has_flows}
        for service in self.services:
            self._names.update(dict.fromkeys(service.translations.values(), service.name))
        for service in set(before) - set(self.services):
            service.pool.unwatch_all()  # avoids a reference cycle

    @property
    def long_tables(self) -> frozenset[tuple[int, str]]:
        """The nft tables, by family and name, that the kernel must have so that ``packet.COPY``
        bytes are enough; for a worker whose ``head`` is None.
        """
        tables = {
            method.name: method.long_table for group in self._groups for method in group.members
        }
        return frozenset(
            (4 if len(service.vip) == 4 else 6, tables[service.method])
            for service in self.services
            if tables[service.method]
        )

    @property
    def tables(self) -> dict[str, FlowTable]:
        """The worker's own flow tables by method; none if the kernel has all flows."""
        return {
            name: datapath.flows
            for name, datapath in self._datapaths.items()
            if datapath.flows is not None
        }

    @property
    def flows(self) -> int:
        """Flows in the worker's own tables."""
        return sum(map(len, self.tables.values()))

    @property
    def unplaced(self) -> tuple[str, ...] | None:
        """The names of the services for whose tables the kernel has no room; None if that is not
        known yet, or to another worker.
        """
        return None if self._bpf is None else self._bpf.unplaced

    @property
    def idle(self) -> bool:
        """Whether ``expire`` and ``sync`` have no work until a packet or a message comes: BPF
        carries, there are no flows, and no service waits for anything.
        """
        return (
            self._bpf is not None
            and self._bpf.idle
            and not self._affinities
            and not any(service.pool.changing for service in self.services)
            and not any(len(table) or table.unread is not None for table in self.tables.values())
            and all(self._datapaths[s.method].flows is not None for s in self.services)
        )

    def trace(self, on_decision: OnDecision) -> None:
        """Call ``on_decision`` for every new flow, with its backend and the reason."""
        for group in self._groups:
            group.trace(on_decision)

    def expire(self, now: float, budget: int) -> None:
        """Remove expired flows and clients; checks at most ``budget`` of each per table."""
        for service in self.services:
            service.tick(now)
        for table in self.tables.values():
            table.expire(now, budget)
        for affinity in self._affinities:
            affinity.expire(now, budget)

    def sync(self, now: float) -> list[PlatformError]:
        """Sync every carrier with the kernel; returns the kernel's refusals."""
        refused = []
        for datapath in self._datapaths.values():
            try:
                datapath.carrier.sync(now)
            except PlatformError as error:
                refused.append(error)
        return refused

    def carry(self, on: bool) -> None:
        """Have the kernel carry the flows that it can carry, or carry them all here."""
        for datapath in self._datapaths.values():
            datapath.carrier.switch(on)

    def apply_states(self, states: States) -> None:
        """Set the states and weights of the backends."""
        apply_states(((s.name, s.pool) for s in self.services), states)

    @property
    def view(self) -> FlowView | None:
        """The worker's own flows; None if the kernel has them all."""
        return FlowView(self._datapaths.values(), self._names) if self.tables else None

    @property
    def carried(self) -> int:
        """Flows of its own tables that the kernel carries."""
        return sum(datapath.carrier.carried for datapath in self._datapaths.values())

    @property
    def bound(self) -> int:
        """The most flows of its own tables."""
        return sum(table.bound for table in self.tables.values())

    @property
    def groups(self) -> dict[str, int]:
        """Flows in its own tables by group of states (``core.flow_states``)."""
        tables = self.tables.values()
        return {
            "active": sum(_estimate(table, table.active) for table in tables),
            "closing": sum(_estimate(table, table.closing) for table in tables),
            "half_open": sum(_estimate(table, table.opening) for table in tables),
        }

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """The counters of each service and backend since the start of this worker: ``conns``,
        ``unanswered``, ``adopted`` where this worker has or adopts flows, and the counters of the
        flows' carrier. Until all flows of a restart are restored, those of live flows are
        estimated, and no backend seems to have none.
        """
        for service in self.services:
            datapath = self._datapaths[service.method]
            table = datapath.flows
            for backend in service.pool.backends:
                counters = dict(datapath.carrier.counters(backend))
                if table is not None or service.adoption is not None:
                    counters["adopted"] = backend.adopted
                if table is not None and table.reserved and "flows" in counters:
                    inactive = counters.get("inactive", 0)
                    counters["flows"] = max(1, _estimate(table, counters["flows"]))
                    counters["inactive"] = _estimate(table, inactive)
                yield service.name, backend.name, _traffic(backend, counters)

    def counts(self) -> dict[str, int]:
        """Packets by reason and flows by their end, without zeros."""
        totals = map(sum, zip(*(each.counts for each in self._datapaths.values()), strict=True))
        counts = {name: n for name, n in zip(REASON_NAMES, totals, strict=True) if n}
        for datapath in self._datapaths.values():
            for name, value in datapath.carrier.counts().items():
                if value:
                    counts[name] = counts.get(name, 0) + value
        for table in self.tables.values():
            ends = {"evicted": table.evicted, "expired": table.expired}
            if table.journal is not None:
                ends["unwritten"] = table.journal.unwritten
            for name, value in ends.items():
                if value:
                    counts[name] = counts.get(name, 0) + value
        return counts


def _estimate(table: FlowTable, flows: int) -> int:
    """How many there will be when all are restored, of those of which ``table`` has ``flows``: what
    is restored first is chosen by a hash.
    """
    restored = len(table) - table.reserved
    return flows + round(flows * table.reserved / restored) if restored else flows


def _traffic(backend: Backend, counters: Mapping[str, int]) -> dict[str, int]:
    return {"conns": backend.conns, "unanswered": backend.unanswered, **counters}


def _decider(built: Mapping[str, Built]) -> Decide | None:
    """Decides about first packets of the services of those ``built``; None without any."""
    deciders = {name: each.decide for name, each in built.items() if each.decide is not None}
    if len(deciders) < 2:
        return next(iter(deciders.values()), None)

    def decide(
        service: VirtualService, protocol: int, key: bytes, now: float, sequence: int
    ) -> int:
        return deciders[service.method](service, protocol, key, now, sequence)

    return decide


def _by_vip(handle: Handle, vips: Container[bytes], other: Handle) -> Handle:
    """A handler that passes packets to ``vips`` to ``handle``, and all others to ``other``."""

    def chosen(buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        four = length >= 20 and buf[offset] >> 4 == 4
        at = offset + (16 if four else 24)
        end = at + (4 if four else 16)
        if bytes(buf[at:end]) in vips and end <= offset + length:
            return handle(buf, offset, length, checksum, now)
        return other(buf, offset, length, checksum, now)

    return chosen


def kind_of(config: Config) -> frozenset[str]:
    """The methods that determine which queues and tables a packet path has. A worker can change
    between configurations of one kind without a restart.
    """
    present = {service.forward: service.method for service in config.services}
    queued = {name: method for name, method in present.items() if method.queued}
    if all(method.owns_vip for method in queued.values()):
        return frozenset(name for name, method in queued.items() if method.journalled)
    return frozenset(queued)


def build(
    config: Config,
    worker: int,
    now: float,
    registry: Registry = STRATEGIES,
    live: LiveFlows | None = None,
    resources: BpfResources | None = None,
    output: PacketOutput | None = None,
) -> WorkerDatapath:
    """The packet path of worker number ``worker`` (0, 1, …) for the services of ``config``.

    ``now`` is monotonic seconds, ``registry`` has the strategies that the services name
    (``policies.load``), ``live`` returns the flows that conntrack has (``forward.datapath``),
    ``resources`` has those of the BPF carrier, None if workers carry all flows. Raises ``OSError``
    if the worker's ring cannot be mapped. ``output`` sends packets of the worker's own, None:
    nothing is sent.
    """
    return WorkerDatapath(config, worker, now, registry, live, resources, output)

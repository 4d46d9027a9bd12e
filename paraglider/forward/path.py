"""The packet path of one worker, whatever its services' ways of forwarding.

Lives here: ``build``, and ``Path``, what a worker's loop needs of it.
Rules: where no service is nat's the worker needs the heads of packets alone; where one is, every
packet comes whole. A VIP of dsr is no other forward's, so its address tells whose a packet is.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from paraglider.config.model import Config
from paraglider.core.flow import Flow
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend
from paraglider.core.service import Service, ServiceMap
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.core.tracing import Decision, TracingBalancer
from paraglider.core.translation import Translation
from paraglider.core.verdict import REASON_NAMES
from paraglider.forward.dsr import build as dsr
from paraglider.forward.dsr.datapath import DsrDatapath
from paraglider.forward.flows import FlowView
from paraglider.forward.nat import build as nat
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.offload import build as offload
from paraglider.forward.offload.datapath import HEAD, FirstPacketDatapath
from paraglider.forward.services import Previous, States, apply_states, make_services

#: called with the decision about a new flow
OnDecision = Callable[[Decision], None]
#: what gives a verdict for a packet (see ``nat.datapath``)
Handle = Callable[[bytearray, int, int, int, float], int]


class Path:
    """``handle`` gives a verdict for a packet (see ``nat.datapath``); ``first_packets`` decides for
    offload.

    ``head`` is how many bytes of a packet it needs, None for all of them.
    """

    def __init__(
        self,
        first_packets: FirstPacketDatapath,
        nat_datapath: NatDatapath | None,
        dsr_datapath: DsrDatapath | None = None,
    ) -> None:
        self.first_packets = first_packets
        paths: dict[str, NatDatapath | DsrDatapath | None] = {
            "nat": nat_datapath,
            "dsr": dsr_datapath,
        }
        self._flow_paths = {name: path for name, path in paths.items() if path is not None}
        self.handle: Handle = first_packets.handle if nat_datapath is None else nat_datapath.handle
        self.head: int | None = HEAD if nat_datapath is None else None
        self._nat = nat_datapath
        self._director = dsr_datapath
        self._vips: set[bytes] = set()  # those of dsr
        self._names: dict[Translation, str] = {}
        self.services: tuple[Service, ...] = ()
        if dsr_datapath is not None:
            alone = not first_packets.balancer.services.services
            self.handle = (
                dsr_datapath.handle if alone else _by_vip(dsr_datapath, self._vips, self.handle)
            )
        self._look_around()

    def apply_config(self, config: Config, before: Config, worker: int, registry: Registry) -> None:
        """Be the path for ``config``, where it was for ``before``: flows keep their backends.

        The ways of forwarding must be the same (``kind_of``); arguments as of ``build``.
        """
        previous = Previous.of(before, self.services)
        forwards = ("offload",) if self._nat is None else ("nat", "offload")
        services = make_services(config, forwards, worker, registry, previous)
        self.first_packets.balancer.services = ServiceMap(services)
        self.first_packets.set_marks(offload.marks_of(config, services))
        if self._nat is not None:
            nat.set_long_verdicts(config, services)
            self._nat.flows.limit(nat.timeouts(config))
        if self._director is not None:
            services = make_services(config, ("dsr",), worker, registry, previous)
            self._director.balancer.services = ServiceMap(services)
            self._director.set_marks(dsr.marks_of(config, services))
            self._director.flows.limit(dsr.timeouts(config))
        self._look_around()

    def _look_around(self) -> None:
        """Take notice of the services, some of which are new."""
        before = self.services
        self.services = self.first_packets.balancer.services.services
        if self._director is not None:
            directed = self._director.balancer.services.services
            self.services += directed
            self._vips.clear()
            self._vips.update(service.vip for service in directed)
        self._affinities = [s.affinity for s in self.services if s.affinity is not None]
        # Flows to what has been removed are still named by the name that it had.
        self._names = {r: name for r, name in self._names.items() if r.backend.remembered}
        for service in self.services:
            self._names.update(dict.fromkeys(service.translations.values(), service.name))
        for service in set(before) - set(self.services):
            service.pool.retire()  # else the two would hold each other for ever

    @property
    def tables(self) -> dict[str, FlowTable]:
        """The worker's own flow tables by name: none where the kernel has all flows."""
        return {name: path.flows for name, path in self._flow_paths.items()}

    @property
    def flows(self) -> int:
        """Flows in the worker's own tables."""
        return sum(map(len, self.tables.values()))

    def trace(self, on_decision: OnDecision) -> None:
        """Have ``on_decision`` called for every new flow, with who got it and why."""
        balancer = TracingBalancer(self.first_packets.balancer.services)
        self.first_packets.balancer = balancer
        self.first_packets.decided = lambda *flow: on_decision(balancer.decision_on(*flow))
        for path in self._flow_paths.values():
            path.balancer = (
                balancer if path is self._nat else TracingBalancer(path.balancer.services)
            )
            path.opened = _opened(path.balancer, on_decision)

    def expire(self, now: float, budget: int) -> None:
        """Time passes. Forget what is over; look at ``budget`` flows a table, and as many clients,
        at most.
        """
        for service in self.services:
            service.pool.tick(now)
        for table in self.tables.values():
            table.expire(now, budget)
        self.first_packets.expire(now)
        for affinity in self._affinities:
            affinity.expire(now, budget)

    def apply_states(self, states: States) -> None:
        """Give the backends the states and weights that the hub has decided."""
        apply_states(((s.name, s.pool) for s in self.services), states)

    @property
    def view(self) -> FlowView | None:
        """The worker's own flows; None where the kernel has them all."""
        ended = None if self._director is None else self._director.ended
        return FlowView(self.tables.values(), self._names, ended) if self.tables else None

    def leases_to_end(self) -> set[int]:
        """The marks of backends of dsr whose leases must end (``forward.dsr.datapath``)."""
        return set() if self._director is None else self._director.leases_to_end()

    @property
    def bound(self) -> int:
        """Flows that its own tables hold at most."""
        return sum(table.bound for table in self.tables.values())

    @property
    def groups(self) -> dict[str, int]:
        """Flows in its own tables by what their states count as (``core.flow_states``)."""
        tables = self.tables.values()
        return {
            "active": sum(table.active for table in tables),
            "closing": sum(table.closing for table in tables),
            "half_open": sum(table.opening for table in tables),
        }

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """Of each service and backend what it has had since the start of this worker.

        ``flows`` (active), ``inactive`` and the packets and bytes each way are there where they
        pass the worker.
        """
        for service in self.services:
            for backend in service.pool.backends:
                yield service.name, backend.name, _traffic(service, backend)

    def counts(self) -> dict[str, int]:
        """Packets by reason and flows by their end, without the zeros."""
        lists = [self.first_packets.counts, *(path.counts for path in self._flow_paths.values())]
        totals = map(sum, zip(*lists, strict=True))
        counts = {name: n for name, n in zip(REASON_NAMES, totals, strict=True) if n}
        for table in self.tables.values():
            ends = {"evicted": table.evicted, "expired": table.expired}
            if table.journal is not None:
                ends["unwritten"] = table.journal.unwritten
            for name, value in ends.items():
                if value:
                    counts[name] = counts.get(name, 0) + value
        return counts


def _opened(balancer: TracingBalancer, on_decision: OnDecision) -> Callable[[Flow], None]:
    def report(flow: Flow) -> None:
        on_decision(balancer.decision_on(flow.protocol, flow.forward_key, flow.translation.backend))

    return report


def _by_vip(dsr_datapath: DsrDatapath, vips: Container[bytes], other: Handle) -> Handle:
    """A handler that gives packets to ``vips`` to ``dsr_datapath``, and all others to ``other``."""
    directed = dsr_datapath.handle

    def handle(buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        four = length >= 20 and buf[offset] >> 4 == 4
        at = offset + (16 if four else 24)
        end = at + (4 if four else 16)
        if bytes(buf[at:end]) in vips and end <= offset + length:
            return directed(buf, offset, length, checksum, now)
        return other(buf, offset, length, checksum, now)

    return handle


def _traffic(service: Service, backend: Backend) -> dict[str, int]:
    found = {"conns": backend.conns, "unanswered": backend.unanswered}
    if not service.offloaded:
        found["flows"] = backend.flows
        found["inactive"] = backend.inactive
    if not service.offloaded and not service.routed:
        found["refused"] = backend.refused
        translation = service.translations[backend]
        for name in ("packets_out", "bytes_out", "packets_back", "bytes_back"):
            found[name] = getattr(translation, name)
    return found


def kind_of(config: Config) -> frozenset[str]:
    """What decides the kind of a path: two configurations of one kind can take turns on one."""
    forwards = {service.forward for service in config.services}
    if "dsr" in forwards:
        return frozenset(forwards & {"nat", "offload", "dsr"})
    return frozenset(forwards & {"nat"})


def build(config: Config, worker: int, now: float, registry: Registry = STRATEGIES) -> Path:
    """The packet path of worker number ``worker`` (0, 1, …) for the services of ``config``.

    ``registry`` has the strategies that the services name (``policies.load``).
    """
    forwards = {service.forward for service in config.services}
    dsr_datapath = dsr.build(config, worker, now, registry) if "dsr" in forwards else None
    if "nat" not in forwards:
        return Path(offload.build(config, worker, registry), None, dsr_datapath)
    path = nat.build(config, worker, now, registry)
    return Path(path.first_packets, path, dsr_datapath)

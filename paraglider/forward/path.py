"""The packet path of one worker, whatever its services' ways of forwarding.

Lives here: ``build``, and ``Path``, what a worker's loop needs of it.
Rules: where no service is nat's the worker needs the heads of packets alone; where one is, every
packet comes whole. A VIP of dsr is no other forward's, so its address tells whose a packet is.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from paraglider.config.model import Config
from paraglider.core.flow import Flow, FlowTable
from paraglider.core.pool import Backend
from paraglider.core.service import Service, ServiceMap
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.core.tracing import Decision, Witness
from paraglider.core.translation import Rewrite
from paraglider.core.verdict import REASON_NAMES
from paraglider.forward.dsr import build as dsr
from paraglider.forward.dsr.datapath import Director
from paraglider.forward.flows import FlowView
from paraglider.forward.nat import build as nat
from paraglider.forward.nat.datapath import Nat
from paraglider.forward.offload import build as offload
from paraglider.forward.offload.datapath import HEAD, Marker
from paraglider.forward.services import Made, States, make_services, put_states

#: told of the decision about a new flow
Told = Callable[[Decision], None]
#: what gives a verdict for a packet (see ``nat.datapath``)
Handle = Callable[[bytearray, int, int, int, float], int]


class Path:
    """``handle`` gives a verdict for a packet (see ``nat.datapath``); ``marker`` decides for
    offload.

    ``head`` is how many bytes of a packet it needs, None for all of them.
    """

    def __init__(
        self, marker: Marker, nat_path: Nat | None, director: Director | None = None
    ) -> None:
        self.marker = marker
        paths: dict[str, Nat | Director | None] = {"nat": nat_path, "dsr": director}
        self._flow_paths = {name: path for name, path in paths.items() if path is not None}
        self.handle: Handle = marker.handle if nat_path is None else nat_path.handle
        self.head: int | None = HEAD if nat_path is None else None
        self._nat = nat_path
        self._director = director
        self._vips: set[bytes] = set()  # those of dsr
        self._names: dict[Rewrite, str] = {}
        self.services: tuple[Service, ...] = ()
        if director is not None:
            alone = not marker.balancer.services.services
            self.handle = director.handle if alone else _by_vip(director, self._vips, self.handle)
        self._look_around()

    def become(self, config: Config, before: Config, worker: int, registry: Registry) -> None:
        """Be the path for ``config``, where it was for ``before``: flows keep their backends.

        The ways of forwarding must be the same (``kind_of``); arguments as of ``build``.
        """
        made = Made.of(before, self.services)
        forwards = ("offload",) if self._nat is None else ("nat", "offload")
        services = make_services(config, forwards, worker, registry, made)
        self.marker.balancer.services = ServiceMap(services)
        self.marker.know(offload.marks_of(config, services))
        if self._nat is not None:
            nat.carry_long(config, services)
            self._nat.flows.limit(nat.timeouts(config))
        if self._director is not None:
            services = make_services(config, ("dsr",), worker, registry, made)
            self._director.balancer.services = ServiceMap(services)
            self._director.know(dsr.marks_of(config, services))
            self._director.flows.limit(dsr.timeouts(config))
        self._look_around()

    def _look_around(self) -> None:
        """Take notice of the services, some of which are new."""
        before = self.services
        self.services = self.marker.balancer.services.services
        if self._director is not None:
            directed = self._director.balancer.services.services
            self.services += directed
            self._vips.clear()
            self._vips.update(service.vip for service in directed)
        self._affinities = [s.affinity for s in self.services if s.affinity is not None]
        # Flows to what has been removed are still told of by the name that it had.
        self._names = {r: name for r, name in self._names.items() if r.backend.remembered}
        for service in self.services:
            self._names.update(dict.fromkeys(service.rewrites.values(), service.name))
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

    def tell(self, told: Told) -> None:
        """Have ``told`` called for every new flow, with who got it and why."""
        witness = Witness(self.marker.balancer.services)
        self.marker.balancer = witness
        self.marker.decided = lambda *flow: told(witness.told(*flow))
        for path in self._flow_paths.values():
            path.balancer = witness if path is self._nat else Witness(path.balancer.services)
            path.opened = _teller(path.balancer, told)

    def expire(self, now: float, budget: int) -> None:
        """Time passes. Forget what is over; look at ``budget`` flows a table, and as many clients,
        at most.
        """
        for service in self.services:
            service.pool.tick(now)
        for table in self.tables.values():
            table.expire(now, budget)
        self.marker.expire(now)
        for affinity in self._affinities:
            affinity.expire(now, budget)

    def put(self, states: States) -> None:
        """Give the backends the states and weights that the hub has decided."""
        put_states(((s.name, s.pool) for s in self.services), states)

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
        lists = [self.marker.counts, *(path.counts for path in self._flow_paths.values())]
        totals = map(sum, zip(*lists, strict=True))
        counts = {name: n for name, n in zip(REASON_NAMES, totals, strict=True) if n}
        for table in self.tables.values():
            ends = {"evicted": table.evicted, "expired": table.expired}
            if table.ledger is not None:
                ends["unwritten"] = table.ledger.unwritten
            for name, value in ends.items():
                if value:
                    counts[name] = counts.get(name, 0) + value
        return counts


def _teller(witness: Witness, told: Told) -> Callable[[Flow], None]:
    def opened(flow: Flow) -> None:
        told(witness.told(flow.protocol, flow.forward_key, flow.rewrite.backend))

    return opened


def _by_vip(director: Director, vips: Container[bytes], other: Handle) -> Handle:
    """Gives the packets to ``vips``, those of dsr, to ``director``, all the rest to ``other``."""
    directed = director.handle

    def handle(buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        four = length >= 20 and buf[offset] >> 4 == 4
        at = offset + (16 if four else 24)
        end = at + (4 if four else 16)
        if bytes(buf[at:end]) in vips and end <= offset + length:
            return directed(buf, offset, length, checksum, now)
        return other(buf, offset, length, checksum, now)

    return handle


def _traffic(service: Service, backend: Backend) -> dict[str, int]:
    found = {"picked": backend.picked, "unanswered": backend.unanswered}
    if not service.offloaded:
        found["flows"] = backend.flows
        found["inactive"] = backend.inactive
    if not service.offloaded and not service.routed:
        found["refused"] = backend.refused
        rewrite = service.rewrites[backend]
        for name in ("packets_out", "bytes_out", "packets_back", "bytes_back"):
            found[name] = getattr(rewrite, name)
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
    director = dsr.build(config, worker, now, registry) if "dsr" in forwards else None
    if "nat" not in forwards:
        return Path(offload.build(config, worker, registry), None, director)
    path = nat.build(config, worker, now, registry)
    return Path(path.marker, path, director)

"""The packet path of one worker, whatever its services' ways of forwarding.

Lives here: ``build``, and ``Path``, what a worker's loop needs of it.
Rules: where no service is nat's the worker needs the heads of packets alone; where one is, every
packet comes whole. Where all are offloaded, and only there, the kernel may pass what the worker
has no room for. A VIP of dsr is no other forward's, so its address tells whose a packet is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from paraglider.config.model import Config
from paraglider.core.director import Director
from paraglider.core.flow import Flow, FlowTable
from paraglider.core.marker import HEAD, Marker
from paraglider.core.nat import Nat
from paraglider.core.pool import Backend
from paraglider.core.rewrite import Rewrite
from paraglider.core.service import Service
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.core.verdict import REASON_NAMES
from paraglider.forwarding import dsr, nat, offload
from paraglider.forwarding.flows import FlowView
from paraglider.forwarding.services import States, put_states

#: told of a new flow: protocol, key of its first packet, backend
Told = Callable[[int, bytes, Backend], None]
#: what gives a verdict for a packet (see ``core.nat``)
Handle = Callable[[bytearray, int, int, int, float], int]


class Path:
    """``handle`` gives a verdict for a packet (see ``core.nat``); ``marker`` decides for offload.

    ``head`` is how many bytes of a packet it needs, None for all of them; ``fail_open`` tells that
    a packet may pass undecided; ``lost`` gives the marks of the backends of dsr that are lost.
    """

    def __init__(
        self, marker: Marker, nat_path: Nat | None, director: Director | None = None
    ) -> None:
        self.marker = marker
        paths: dict[str, Nat | Director | None] = {"nat": nat_path, "dsr": director}
        self._flow_paths = {name: path for name, path in paths.items() if path is not None}
        self.handle: Handle = marker.handle if nat_path is None else nat_path.handle
        self.head: int | None = HEAD if nat_path is None else None
        self.fail_open = not self._flow_paths
        self.services: tuple[Service, ...] = marker.balancer.services.services
        if director is not None:
            self.handle = _by_vip(director, self.handle) if self.services else director.handle
            self.services += director.balancer.services.services
        self.lost: Callable[[], frozenset[int]] = frozenset if director is None else director.lost
        self._affinities = [s.affinity for s in self.services if s.affinity is not None]
        self._names: dict[Rewrite, str] = {
            rewrite: service.name
            for service in self.services
            for rewrite in service.rewrites.values()
        }

    @property
    def tables(self) -> dict[str, FlowTable]:
        """The worker's own flow tables by name: none where the kernel has all flows."""
        return {name: path.flows for name, path in self._flow_paths.items()}

    @property
    def flows(self) -> int:
        """Flows in the worker's own tables."""
        return sum(map(len, self.tables.values()))

    def tell(self, told: Told) -> None:
        """Have ``told`` called for every new flow."""
        self.marker.decided = told

        def opened(flow: Flow) -> None:
            told(flow.protocol, flow.forward_key, flow.rewrite.backend)

        for path in self._flow_paths.values():
            path.opened = opened

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
        return FlowView(self.tables.values(), self._names) if self.tables else None

    @property
    def bound(self) -> int:
        """Flows that its own tables hold at most."""
        return sum(table.bound for table in self.tables.values())

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """Of each service and backend what it has had since the start of this worker.

        ``flows`` (live) and the packets and bytes each way are there where they pass the worker.
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


def _by_vip(director: Director, other: Handle) -> Handle:
    """Gives the packets to the VIPs of dsr to ``director``, all the rest to ``other``."""
    vips = frozenset(service.vip for service in director.balancer.services.services)
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
    found = {"picked": backend.picked}
    if not service.offloaded:
        found["flows"] = backend.flows
    if not service.offloaded and not service.routed:
        rewrite = service.rewrites[backend]
        for name in ("packets_out", "bytes_out", "packets_back", "bytes_back"):
            found[name] = getattr(rewrite, name)
    return found


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

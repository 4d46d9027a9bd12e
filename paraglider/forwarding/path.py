"""The packet path of one worker, whatever its services' ways of forwarding.

Lives here: ``build``, and ``Path``, what a worker's loop needs of it.
Rules: where every service is offloaded the worker needs the heads of packets alone, and may let
the kernel pass what it has no room for; where one is not, every packet comes whole.
"""

from __future__ import annotations

from collections.abc import Callable

from paraglider.config.model import Config
from paraglider.core.flow import Flow, FlowTable
from paraglider.core.marker import HEAD, Marker
from paraglider.core.nat import Nat
from paraglider.core.pool import Backend
from paraglider.core.service import Service
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.core.verdict import REASON_NAMES
from paraglider.forwarding import nat, offload

#: told of a new flow: protocol, key of its first packet, backend
Told = Callable[[int, bytes, Backend], None]


class Path:
    """``handle`` gives a verdict for a packet (see ``core.nat``); ``marker`` decides for offload.

    ``head`` is how many bytes of a packet it needs, None for all of them.
    """

    def __init__(self, marker: Marker, nat_path: Nat | None) -> None:
        self._nat = nat_path
        self.marker = marker
        self.handle: Callable[[bytearray, int, int, int, float], int] = (
            marker.handle if nat_path is None else nat_path.handle
        )
        self.head: int | None = HEAD if nat_path is None else None
        self.services: tuple[Service, ...] = marker.balancer.services.services
        self._affinities = [s.affinity for s in self.services if s.affinity is not None]

    @property
    def tables(self) -> dict[str, FlowTable]:
        """The worker's own flow tables by name: none where the kernel has all flows."""
        return {} if self._nat is None else {"nat": self._nat.flows}

    @property
    def flows(self) -> int:
        """Flows in the worker's own tables."""
        return sum(map(len, self.tables.values()))

    def tell(self, told: Told) -> None:
        """Have ``told`` called for every new flow."""
        self.marker.decided = told
        if self._nat is not None:

            def opened(flow: Flow) -> None:
                told(flow.protocol, flow.forward_key, flow.rewrite.backend)

            self._nat.opened = opened

    def expire(self, now: float, budget: int) -> None:
        """Forget what is over; look at ``budget`` flows, and as many clients, at most."""
        if self._nat is not None:
            self._nat.flows.expire(now, budget)
        self.marker.expire(now)
        for affinity in self._affinities:
            affinity.expire(now, budget)

    def counts(self) -> dict[str, int]:
        """Packets by reason and flows by their end, without the zeros."""
        lists = [self.marker.counts, *([self._nat.counts] if self._nat is not None else [])]
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


def build(config: Config, worker: int, now: float, registry: Registry = STRATEGIES) -> Path:
    """The packet path of worker number ``worker`` (0, 1, …) for the services of ``config``.

    ``registry`` has the strategies that the services name (``policies.load``).
    """
    if all(service.forward == "offload" for service in config.services):
        return Path(offload.build(config, worker, registry), None)
    path = nat.build(config, worker, now, registry)
    return Path(path.marker, path)

"""The figures of a run, and its document.

Lives here: ``METRICS``, ``Results`` with its parts, medians and ratios, and the JSON form
(``schema.json`` describes it).
Rules: standard library only (``picture`` reads results where the package is not installed); pure.
Raw rounds are stored; medians and ratios are computed from them.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1
CGROUP, MACHINE = "cgroup", "machine"  # what the CPU time of the bed is read from
REFERENCE = "dnat"  # the peer that ratios are taken to
REFERENCES = {1: "dnat-1"}  # by the number of backends, where it is another one
REFERENCE_DIRECT = "dnat-switched"  # in the network of direct return, which has a switch more


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a sample; ``more`` tells whether more of it is better."""

    title: str
    unit: str
    more: bool
    digits: int = 0


METRICS = {
    "connections": Metric("connections/s", "1/s", True),
    "keepalive": Metric("keepalive requests/s", "1/s", True),
    "bulk_down": Metric("bulk down", "Gbit/s", True, 1),
    "bulk_up": Metric("bulk up", "Gbit/s", True, 1),
    "p50": Metric("p50 latency", "µs", False),
    "p99": Metric("p99 latency", "µs", False),
    "udp": Metric("small UDP packets/s", "1/s", True),
    "cpu_gb": Metric("balancer's processes, CPU s/GB", "s", False, 2),
    "cpu_connections": Metric("balancer's processes, CPU s/10k connections", "s", False, 2),
    "us_connection": Metric("CPU of the bed, a connection", "µs", False),
    "us_request": Metric("CPU of the bed, a keepalive request", "µs", False, 1),
    "us_mb_down": Metric("CPU of the bed, a MB down", "µs", False),
    "us_mb_up": Metric("CPU of the bed, a MB up", "µs", False),
    "us_datagram": Metric("CPU of the bed, a small datagram", "µs", False, 1),
    # in documents of earlier versions
    "machine_gb": Metric("whole machine, CPU s/GB", "s", False, 2),
    "machine_connections": Metric("whole machine, CPU s/10k connections", "s", False, 2),
}
RATES = ("connections", "keepalive", "bulk_down", "bulk_up", "p50", "p99", "udp")
UNITS = ("us_connection", "us_request", "us_mb_down", "us_mb_up", "us_datagram")
COSTS = ("cpu_gb", "cpu_connections", "machine_gb", "machine_connections")

#: figures by the key of their metric; a metric that could not be measured is not in it
Sample = dict[str, float]


@dataclass(slots=True)
class PeerResult:
    """All rounds of one peer.

    ``missing`` says why there are none, ``cannot`` why a load has no figures, ``notes`` what went
    wrong. ``backends`` is the number of backends that share the connections, ``carrier`` what
    carried the packets of Paraglider's own rows. ``direct``: in the network of direct return.
    """

    name: str
    title: str
    missing: str | None = None
    cannot: dict[str, str] = field(default_factory=dict)
    rounds: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    backends: int = 3
    carrier: str = ""
    direct: bool = False

    def median(self, metric: str) -> float | None:
        """The median of a metric over the rounds that have it."""
        return median(sample[metric] for sample in self.rounds if metric in sample)


@dataclass(slots=True)
class CoreSize:
    """The flow table at ``flows`` flows.

    ``new_flow_ns`` is the CPU time of one more flow, ``bytes_a_flow`` the resident memory divided
    by the flows, ``stall_ms`` the longest hundred flows on the way here (growth of the tables).
    """

    flows: int
    new_flow_ns: float
    bytes_a_flow: float
    stall_ms: float


@dataclass(slots=True)
class CoreResult:
    """The core of one build with one strategy; ``missing`` says why there is nothing.

    ``expire_pause_ms`` is the longest call of ``expire`` (CPU time) with all flows due.
    """

    build: str
    strategy: str
    missing: str | None = None
    sizes: list[CoreSize] = field(default_factory=list)
    expire_pause_ms: float | None = None

    def size(self, flows: int) -> CoreSize | None:
        """The figures at ``flows`` flows, if they were measured."""
        return next((size for size in self.sizes if size.flows == flows), None)

    def to_json(self) -> str:
        """The JSON form that ``core_probe`` prints."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CoreResult:
        """The result in the text of ``to_json``."""
        return cls.from_document(json.loads(text))

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> CoreResult:
        """The result in ``document``."""
        sizes = [CoreSize(**size) for size in document["sizes"]]
        return cls(**{**document, "sizes": sizes})

    def growth(self) -> float | None:
        """How many times more a new flow costs at the largest size than at the smallest."""
        if len(self.sizes) < 2:
            return None
        return self.sizes[-1].new_flow_ns / self.sizes[0].new_flow_ns


@dataclass(slots=True)
class Results:
    """One run. ``host`` and ``versions`` say where and of what, ``seconds`` how long each load,
    ``cpu`` what the CPU time of the bed was read from: a ``cgroup``, or the ``machine``.
    """

    date: str
    quick: bool
    host: dict[str, str]
    versions: dict[str, str]
    seconds: dict[str, int]
    peers: list[PeerResult] = field(default_factory=list)
    core: list[CoreResult] = field(default_factory=list)
    cpu: str = MACHINE

    def peer(self, name: str) -> PeerResult | None:
        """The peer called ``name``, if the run had it."""
        return next((peer for peer in self.peers if peer.name == name), None)

    def figure(self, peer: str, metric: str) -> float | None:
        """The median of ``metric`` of ``peer``."""
        found = self.peer(peer)
        return None if found is None else found.median(metric)

    def reference(self, peer: str) -> str:
        """The peer that ``peer`` is compared with: kernel DNAT over as many backends or in the same
        network, or the one over three where the run has no other.
        """
        found = self.peer(peer)
        name = REFERENCE if found is None else REFERENCES.get(found.backends, REFERENCE)
        if found is not None and found.direct:
            name = REFERENCE_DIRECT
        return REFERENCE if self.peer(name) is None else name

    def ratio(self, peer: str, metric: str, to: str | None = None) -> float | None:
        """The median of ``peer`` divided by the median of ``to``, by default its reference.

        Of CPU a unit it is the inverse: how many units ``peer`` does in the time of one of ``to``.
        """
        own, other = self.figure(peer, metric), self.figure(to or self.reference(peer), metric)
        return quotient(other, own) if metric in UNITS else quotient(own, other)

    def has(self, metric: str) -> bool:
        """Whether any peer has a figure of ``metric``."""
        return any(peer.median(metric) is not None for peer in self.peers)

    @property
    def rounds(self) -> int:
        """The number of rounds of the peer with the most."""
        return max((len(peer.rounds) for peer in self.peers), default=0)

    def to_json(self) -> str:
        """The document."""
        document = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The results in a document; raises ``ValueError`` when it is of another format."""
        document: dict[str, Any] = json.loads(text)
        if document.pop("format", None) != FORMAT:
            raise ValueError(f"results of another format than {FORMAT}")
        peers = [PeerResult(**peer) for peer in document.pop("peers")]
        core = [CoreResult.from_document(part) for part in document.pop("core")]
        return cls(**document, peers=peers, core=core)


def median(values: Iterable[float]) -> float | None:
    """The median, None of nothing."""
    known = list(values)
    return statistics.median(known) if known else None


def quotient(value: float | None, by: float | None) -> float | None:
    """``value / by``, None where one of them is missing or ``by`` is 0."""
    return None if value is None or not by else value / by

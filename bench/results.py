"""The figures of a run, and the document they are kept in.

Lives here: ``METRICS``, ``Results`` with its parts, medians and ratios, and the JSON form
(``schema.json`` describes it).
Rules: standard library only (``picture`` reads results where the package is not installed); pure.
What is kept are raw rounds; medians and ratios are computed from them, never stored.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

FORMAT = 1
REFERENCE = "dnat"  # the peer that ratios are taken to


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
    "machine_gb": Metric("whole machine, CPU s/GB", "s", False, 2),
    "machine_connections": Metric("whole machine, CPU s/10k connections", "s", False, 2),
}
RATES = ("connections", "keepalive", "bulk_down", "bulk_up", "p50", "p99", "udp")
COSTS = ("cpu_gb", "cpu_connections", "machine_gb", "machine_connections")

#: figures by the key of their metric; a metric that could not be measured is not in it
Sample = dict[str, float]


@dataclass(slots=True)
class PeerResult:
    """All rounds of one peer.

    ``missing`` says why there are none, ``cannot`` why a load has no figures, ``notes`` what went
    wrong.
    """

    name: str
    title: str
    missing: str | None = None
    cannot: dict[str, str] = field(default_factory=dict)
    rounds: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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
        """The figures at ``flows`` flows, where they were taken."""
        return next((size for size in self.sizes if size.flows == flows), None)

    def to_json(self) -> str:
        """This alone, as ``core_probe`` hands it over."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CoreResult:
        """What ``to_json`` gave."""
        return cls.from_document(json.loads(text))

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> CoreResult:
        """The result that ``document`` tells of."""
        sizes = [CoreSize(**size) for size in document["sizes"]]
        return cls(**{**document, "sizes": sizes})

    def growth(self) -> float | None:
        """How many times more a new flow costs at the largest size than at the smallest."""
        if len(self.sizes) < 2:
            return None
        return self.sizes[-1].new_flow_ns / self.sizes[0].new_flow_ns


@dataclass(slots=True)
class Results:
    """One run. ``host`` and ``versions`` say where and of what, ``seconds`` how long each load."""

    date: str
    quick: bool
    host: dict[str, str]
    versions: dict[str, str]
    seconds: dict[str, int]
    peers: list[PeerResult] = field(default_factory=list)
    core: list[CoreResult] = field(default_factory=list)

    def peer(self, name: str) -> PeerResult | None:
        """The peer called ``name``, where the run had it."""
        return next((peer for peer in self.peers if peer.name == name), None)

    def figure(self, peer: str, metric: str) -> float | None:
        """The median of ``metric`` of ``peer``."""
        found = self.peer(peer)
        return None if found is None else found.median(metric)

    def ratio(self, peer: str, metric: str, to: str = REFERENCE) -> float | None:
        """The median of ``peer`` in parts of the median of ``to``."""
        return quotient(self.figure(peer, metric), self.figure(to, metric))

    @property
    def rounds(self) -> int:
        """The rounds of the peer that has most."""
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

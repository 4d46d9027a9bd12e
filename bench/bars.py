"""The project's target figures (bars), and whether a run met them.

Rules: a table and its evaluation; pure. A bar without a figure has no result. Bars do not affect
the exit code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.results import METRICS, UNITS, Results

# Ratios to kernel DNAT: at least, but for latency: at most.
_COMPILED_NAT = {
    "connections": 0.68,
    "keepalive": 0.60,
    "bulk_down": 0.65,
    "bulk_up": 0.65,
    "p50": 1.50,
}
RATIOS: dict[str, dict[str, float]] = {
    "offload": {
        "connections": 0.85,
        "keepalive": 0.95,
        "bulk_down": 0.90,
        "bulk_up": 0.90,
        "p50": 1.10,
    },
    "nat-netlink": _COMPILED_NAT,
    "nat-netlink-2": _COMPILED_NAT,  # a worker on every core, which is the default
    "nat-netlink-pure": {
        "connections": 0.45,
        "keepalive": 0.45,
        "bulk_down": 0.45,
        "bulk_up": 0.45,
        "p50": 2.2,
    },
}
PROXIES = ("haproxy", "nginx")
AHEAD_OF = {"offload": PROXIES}  # on every column
#: of rates, and of CPU a unit, to kernel DNAT: where a BPF program carries, and Python decides, or
#: the program
CARRIED: dict[str, dict[str, float]] = {
    "nat-bpf": {
        "connections": 0.95,
        "keepalive": 1.03,
        "bulk_down": 1.0,
        "bulk_up": 1.0,
        "udp": 1.0,
        "p50": 1.0,
    },
    "nat-bpf-decides": {
        "connections": 1.08,
        "keepalive": 1.06,
        "bulk_down": 1.03,
        "bulk_up": 1.03,
        "udp": 1.05,
        "p50": 1.0,
    },
    "dsr-hash": {
        "connections": 1.25,
        "keepalive": 1.1,
        "bulk_down": 1.15,
        "udp": 1.05,
        "p50": 0.95,
    },
}
#: the CPU of a unit of each rate
UNIT_OF = dict(zip(("connections", "keepalive", "bulk_down", "bulk_up", "udp"), UNITS, strict=True))
#: ratios to a peer of the same kind, at least
BESIDE = {"proxy": ("nginx", {"connections": 0.5, "bulk_down": 0.5, "bulk_up": 0.5})}
MORE_THAN = {"nat-netlink-2": "nat-netlink"}  # two workers carry more than one
MORE_COLUMNS = ("connections", "keepalive")
#: as ``BESIDE``, in a run that has these: what `adopt: auto` costs beside `never`
ADOPTING = {"nat-maglev": ("nat-maglev-never", {"connections": 0.98, "keepalive": 0.98})}
BYTES_A_FLOW = {"compiled": 300.0, "interpreted": 900.0}
GROWTH = 1.5  # a new flow in the fullest table, in times of one in the emptiest
EXPIRE_PAUSE_MS = 5.0


COLUMNS = tuple(RATIOS["offload"])
BYTES, GROWTH_OF_COST, PAUSE = "bytes a flow", "growth of a new flow's cost", "expiry pause, ms"


@dataclass(frozen=True, slots=True)
class Bar:
    """The ``figure`` in ``row`` and ``column`` must be at least (or ``at_most``) ``limit``."""

    row: str
    column: str
    figure: float | None
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is met; None if the figure is missing."""
        if self.figure is None:
            return None
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit


def ratio_bars(results: Results) -> list[Bar]:
    """The bars between peers: to kernel DNAT, then of some to peers of their own kind."""
    found = []
    for peer, limits in RATIOS.items():
        found += [_ratio(results, peer, metric, limits[metric]) for metric in limits]
    for peer, others in AHEAD_OF.items():
        for other in others:
            found += [_ratio(results, peer, metric, 1.0, other) for metric in COLUMNS]
    for peer, (other, limits) in BESIDE.items():
        found += [_ratio(results, peer, metric, limits[metric], other) for metric in limits]
    for peer, other in MORE_THAN.items():
        found += [_ratio(results, peer, metric, 1.0, other) for metric in MORE_COLUMNS]
    for peer in filter(results.peer, ADOPTING):
        other, limits = ADOPTING[peer]
        found += [_ratio(results, peer, metric, limits[metric], other) for metric in limits]
    return found


def core_bars(results: Results) -> list[Bar]:
    """The bars of the flow table: the worst of all strategies, at the largest size."""
    found = []
    for build, limit in BYTES_A_FLOW.items():
        parts = [part for part in results.core if part.build == build and part.sizes]
        memory = [part.sizes[-1].bytes_a_flow for part in parts]
        growth = [g for part in parts if (g := part.growth()) is not None]
        pauses = [p for part in parts if (p := part.expire_pause_ms) is not None]
        found += [
            Bar(build, BYTES, max(memory, default=None), limit, at_most=True),
            Bar(build, GROWTH_OF_COST, max(growth, default=None), GROWTH, at_most=True),
            Bar(build, PAUSE, max(pauses, default=None), EXPIRE_PAUSE_MS, at_most=True),
        ]
    return found


def carrier_bars(results: Results) -> list[Bar]:
    """The bars of the peers that BPF carries, if the run has them: CPU a unit and rates relative to
    kernel DNAT, then rates relative to the proxies.
    """
    found = []
    for peer in filter(results.peer, CARRIED):
        for metric, limit in CARRIED[peer].items():
            rate = _ratio(results, peer, metric, limit)
            if metric in UNIT_OF:
                cost = results.ratio(peer, UNIT_OF[metric])
                found.append(Bar(f"{peer}, CPU a unit", rate.column, cost, limit))
            found.append(replace(rate, row=f"{peer}, rates"))
        for other in PROXIES:
            found += [_ratio(results, peer, metric, 1.0, other) for metric in CARRIED[peer]]
    return found


def _ratio(results: Results, peer: str, metric: str, limit: float, to: str | None = None) -> Bar:
    figure = results.ratio(peer, metric, to)
    row = f"{peer} to {to or results.reference(peer)}"
    return Bar(row, METRICS[metric].title, figure, limit, at_most=not METRICS[metric].more)

"""Tables of a run: the same grids for the terminal and, as Markdown, for the documentation.

Rules: pure; ``Results`` in, text out. A missing figure is a dash, never a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.bars import Bar, carrier_bars, core_bars, ratio_bars
from bench.results import (
    CGROUP,
    COSTS,
    METRICS,
    RATES,
    UNITS,
    CoreResult,
    PeerResult,
    Results,
    Sample,
)

DASH = "–"
_UNIT_TITLES = {
    "us_connection": "connection",
    "us_request": "keepalive request",
    "us_mb_down": "MB down",
    "us_mb_up": "MB up",
    "us_datagram": "small datagram",
}
_MEMORY_FROM = 100_000  # flows; below, memory that was free before is counted for nothing


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: the first column is of names, the others of figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> Table:
        """The grid for the terminal."""
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for index, name in enumerate(self.header):
            table.add_column(name, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The grid as a Markdown table, without its title."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        lines = [self.header, rule, *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rates(results: Results) -> Grid:
    """The rates of every peer, and their ratio to kernel DNAT."""
    header = ("", *(_heading(metric) for metric in RATES))
    return Grid("Rates and latency (× kernel DNAT)", header, _peer_rows(results, RATES))


def units(results: Results) -> Grid:
    """The CPU cost of a unit of each load in the bed: relative to kernel DNAT over as many backends
    (above 1 is cheaper), and as CPU time.
    """
    header = ("", *(f"{_UNIT_TITLES[metric]}, µs" for metric in UNITS), "carried by")
    rows = tuple(
        (peer.title, *(_unit(results, peer, metric) for metric in UNITS), peer.carrier)
        for peer in results.peers
        if peer.missing is None
    )
    title = "CPU of the bed a unit (× kernel DNAT: above 1 is cheaper)"
    return Grid(title, header, rows)


def has_units(results: Results) -> bool:
    """Whether the run has CPU a unit; earlier formats do not."""
    return any(map(results.has, UNITS))


def costs(results: Results) -> Grid:
    """CPU seconds of the balancer's processes, and of the whole machine in runs that have it."""
    titles = ("processes, s/GB", "processes, s/10k conn.", "machine, s/GB", "machine, s/10k conn.")
    shown = {m: t for m, t in zip(COSTS, titles, strict=True) if results.has(m)}
    return Grid("CPU (× kernel DNAT)", ("", *shown.values()), _peer_rows(results, tuple(shown)))


def flow_table(results: Results) -> Grid:
    """The cost of flows in the core, by build and strategy."""
    sizes = sorted({size.flows for part in results.core for size in part.sizes})
    header = ["", *(f"new flow at {thousands(size)}, µs" for size in sizes), "growth"]
    header += [f"bytes a flow at {thousands(size)}" for size in sizes if size >= _MEMORY_FROM]
    header += ["longest stall, ms", "longest expiry, ms"]
    rows = tuple(_core_row(part, sizes, len(header)) for part in results.core)
    return Grid("Flow table, one worker, no network (CPU time)", tuple(header), rows)


def bar_grid(title: str, bars: Sequence[Bar]) -> Grid:
    """Bars by row and column: the figure, the bar, and whether it is met."""
    columns = list(dict.fromkeys(bar.column for bar in bars))
    rows = []
    for name in dict.fromkeys(bar.row for bar in bars):
        cells = {bar.column: _bar(bar) for bar in bars if bar.row == name}
        rows.append((name, *(cells.get(column, "") for column in columns)))
    return Grid(title, ("", *columns), tuple(rows))


def all_grids(results: Results) -> list[Grid]:
    """Every grid, of the parts that the run had."""
    grids = []
    if results.peers:
        ratios = bar_grid("Bars: ratios", ratio_bars(results))
        if has_units(results):
            grids.append(units(results))
        grids += [
            rates(results),
            *([costs(results)] if any(map(results.has, COSTS)) else []),
            ratios,
        ]
        if bars := carrier_bars(results):
            grids.append(bar_grid("Bars: carried by BPF, × kernel DNAT", bars))
    if results.core:
        grids += [flow_table(results), bar_grid("Bars: flow table", core_bars(results))]
    return grids


def remarks(results: Results) -> list[str]:
    """Missing figures with their reasons, and errors of the run, a sentence each."""
    reasons: dict[str, list[str]] = {}
    for peer in results.peers:
        if peer.missing is not None:
            reasons.setdefault(peer.missing, []).append(peer.title)
        for load, why in peer.cannot.items():
            reasons.setdefault(why, []).append(f"{peer.title}: {load}")
    for part in results.core:
        if part.missing is not None:
            reasons.setdefault(part.missing, []).append(f"flow table of {_part_name(part)}")
    lines = [f"Not measured: {'; '.join(names)} ({why})." for why, names in reasons.items()]
    lines += [f"{peer.title}, {note}." for peer in results.peers for note in peer.notes]
    return lines


def circumstances(results: Results) -> str:
    """One sentence: when, on what, how often, of which versions."""
    host = results.host
    rounds = {0: "no round", 1: "one round"}.get(
        results.rounds, f"{results.rounds} interleaved rounds"
    )
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"{results.date}, {host['cpus']} CPUs ({host['cpu']}), {host['memory']}, Linux"
        f" {host['kernel']}, Python {host['python']}; medians of {rounds}"
        f"{' (--quick)' if results.quick else ''}{_bed(results)}. {versions}."
    )


def sample_line(sample: Sample) -> str:
    """One sample in one line, for the progress of a run."""
    parts = []
    for metric, value in sample.items():
        if metric in (*RATES, *UNITS):
            unit = METRICS[metric].unit.replace("1/s", "")
            name = metric.replace("_", " ")
            parts.append(f"{name} {number(value, METRICS[metric].digits)}{' ' * bool(unit)}{unit}")
    return " · ".join(parts) or "nothing measured"


def number(value: float, digits: int = 0) -> str:
    """``value`` with ``digits`` decimals, thousands by k where there are ten of them."""
    if digits == 0 and value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:.{digits}f}"


def thousands(flows: int) -> str:
    """10k, 100k, 1M."""
    return f"{flows // 1_000_000}M" if flows >= 1_000_000 else f"{flows // 1000}k"


def _heading(metric: str) -> str:
    unit = METRICS[metric].unit
    return METRICS[metric].title + ("" if unit == "1/s" else f", {unit}")


def _peer_rows(results: Results, metrics: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(_peer_row(results, peer, metrics) for peer in results.peers)


def _peer_row(results: Results, peer: PeerResult, metrics: tuple[str, ...]) -> tuple[str, ...]:
    return (peer.title, *(_figure(results, peer, metric) for metric in metrics))


def _figure(results: Results, peer: PeerResult, metric: str) -> str:
    """The median and, behind it, the ratio to the reference."""
    return " ".join(_median(results, peer, metric, "(×{:.2f})"))


def _unit(results: Results, peer: PeerResult, metric: str) -> str:
    """The ratio to the reference and, behind it, the median."""
    *text, last = _median(results, peer, metric, "×{:.2f}")
    return f"{last} ({text[0]})" if text else last


def _median(results: Results, peer: PeerResult, metric: str, ratio: str) -> tuple[str, ...]:
    """The median, and the ratio to the reference where there is one, formatted by ``ratio``."""
    value = peer.median(metric)
    if value is None:
        return (DASH,)
    text = number(value, METRICS[metric].digits)
    found = results.ratio(peer.name, metric)
    if found is None or peer.name == results.reference(peer.name):
        return (text,)
    return (text, ratio.format(found))


def _bed(results: Results) -> str:
    """The source of the bed's CPU time, if the run has it."""
    if not has_units(results):
        return ""
    source = "its control group" if results.cpu == CGROUP else "the whole machine's"
    return f"; CPU of the bed: {source}"


def _bar(bar: Bar) -> str:
    limit = f"{'≤' if bar.at_most else '≥'} {bar.limit:g}"
    if bar.figure is None:
        return f"{DASH} ({limit})"
    measured = number(bar.figure, 2 if bar.figure < 10 else 0)
    return f"{measured} ({limit}, {'met' if bar.met else 'NOT MET'})"


def _core_row(part: CoreResult, sizes: list[int], width: int) -> tuple[str, ...]:
    name = _part_name(part)
    if part.missing is not None:
        return (name, *[DASH] * (width - 1))
    cells = [name]
    found = [part.size(size) for size in sizes]
    cells += [DASH if size is None else f"{size.new_flow_ns / 1000:.2f}" for size in found]
    growth = part.growth()
    cells.append(DASH if growth is None else f"×{growth:.2f}")
    cells += [
        DASH if size is None else f"{size.bytes_a_flow:.0f}"
        for flows, size in zip(sizes, found, strict=True)
        if flows >= _MEMORY_FROM
    ]
    cells.append(f"{max(size.stall_ms for size in part.sizes):.1f}" if part.sizes else DASH)
    pause = part.expire_pause_ms
    cells.append(DASH if pause is None else f"{pause:.1f}")
    return tuple(cells)


def _part_name(part: CoreResult) -> str:
    return f"{part.build}, {part.strategy}"

"""Draws the picture of a run: ``python -m bench.picture RESULTS.json PICTURE.png``.

Rules: runs in .venv-bench, which has matplotlib but not Paraglider, so it imports only ``results``
of the bench.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from bench.results import METRICS, PeerResult, Results

SHOWN = ("connections", "keepalive", "bulk_down", "bulk_up", "p50", "udp")
INK, FAINT = "#1f2933", "#9aa5b1"


@dataclass(frozen=True, slots=True)
class Panel:
    """The bars of one metric, from the top down; a ``ratio`` is None where there is no figure."""

    title: str
    labels: list[str]
    ratios: list[float | None]
    texts: list[str]
    colours: list[str]


def colour(name: str) -> str:
    """Grey is the kernel alone, blue are proxies, orange rewrites every packet, green decides."""
    if name.startswith(("routed", "dnat")):
        return "#a8b3bf"
    if name in ("haproxy", "nginx"):
        return "#5b8db8"
    return "#e0853d" if name.startswith("nat") else "#3d9970"


def panel(results: Results, metric: str) -> Panel:
    """The panel of ``metric``, with the peers that were there."""
    peers = [peer for peer in results.peers if peer.missing is None]
    what = METRICS[metric]
    return Panel(
        title=what.title + (" (more is better)" if what.more else " (less is better)"),
        labels=[peer.title for peer in peers],
        ratios=[results.ratio(peer.name, metric) for peer in peers],
        texts=[_text(peer, metric) for peer in peers],
        colours=[colour(peer.name) for peer in peers],
    )


def draw(results: Results, file: Path) -> None:
    """Write the picture as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MultipleLocator

    panels = [panel(results, metric) for metric in SHOWN]
    rows = len(panels[0].labels)
    figure, axes = plt.subplots(
        2, 3, figsize=(13, 1.6 + 0.62 * rows), sharey=True, layout="constrained"
    )
    for axis, shown in zip(axes.flat, panels, strict=True):
        widths = [ratio or 0 for ratio in shown.ratios]
        bars = axis.barh(range(rows), widths, color=shown.colours, height=0.72)
        axis.bar_label(bars, shown.texts, padding=3, fontsize=8, color=INK)
        axis.axvline(1, color=INK, linewidth=0.8, linestyle=":", zorder=0)
        axis.set_xlim(0, 1.28 * max([1.0, *widths]))
        axis.xaxis.set_major_locator(MultipleLocator(0.5 if max(widths) < 2 else 1))
        axis.set_title(shown.title, fontsize=10, loc="left", color=INK)
        axis.set_yticks(range(rows), shown.labels, fontsize=8.5, color=INK)
        axis.tick_params(axis="x", labelsize=8, colors=FAINT)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes.flat[0].invert_yaxis()
    host = results.host
    figure.suptitle(
        "One worker, three backends, relative to kernel DNAT (dotted line)",
        fontsize=12,
        color=INK,
    )
    figure.supxlabel(
        f"{results.date} · {host['cpus']} CPUs ({host['cpu']}) · Linux {host['kernel']}"
        f" · medians of {results.rounds}",
        fontsize=8.5,
        color=FAINT,
    )
    figure.savefig(file, dpi=110)


def _text(peer: PeerResult, metric: str) -> str:
    value = peer.median(metric)
    if value is None:
        return "not measured"
    digits = METRICS[metric].digits
    if digits == 0 and value >= 10_000:
        return f"{value / 1000:.1f}k"
    unit = METRICS[metric].unit
    return f"{value:.{digits}f}" + ("" if unit == "1/s" else f" {unit}")


def main() -> None:
    """Read, draw."""
    document, picture = map(Path, sys.argv[1:])
    draw(Results.from_json(document.read_text(encoding="utf-8")), picture)


if __name__ == "__main__":
    main()

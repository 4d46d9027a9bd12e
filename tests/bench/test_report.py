"""Tables have the figures, and a dash for missing ones."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench import report
from bench.bars import ratio_bars
from bench.report import DASH, Grid
from bench.results import PeerResult, Results


def row(grid: Grid, name: str) -> dict[str, str]:
    """The cells of a row by their heading."""
    (cells,) = [row for row in grid.rows if row[0] == name]
    return dict(zip(grid.header, cells, strict=True))


def test_rates_have_figures_and_ratios(results: Results) -> None:
    """A cell is the median with the ratio; the reference has no ratio to itself."""
    grid = report.rates(results)
    nat = row(grid, "nat")
    assert nat["connections/s"] == "6000 (×0.60)"
    assert nat["keepalive requests/s"] == "24.0k (×0.60)"
    assert nat["bulk down, Gbit/s"] == "9.6 (×0.60)"
    assert row(grid, "kernel DNAT")["connections/s"] == "10.0k"


def test_units_have_the_ratio_first(results: Results) -> None:
    """The ratio first, then the time; the reference only has the time."""
    results.peers.append(PeerResult("dnat-1", "DNAT 1", rounds=[{"us_request": 9.0}], backends=1))
    grid = report.units(results)
    nat = row(grid, "nat")
    assert nat["connection, µs"] == "×0.60 (250)"
    assert nat["small datagram, µs"] == "×0.60 (20.8)"
    assert row(grid, "kernel DNAT")["MB up, µs"] == "550"
    assert row(grid, "DNAT 1")["keepalive request, µs"] == "9.0"
    assert "offload" not in {cells[0] for cells in grid.rows}


def test_runs_without_cpu_a_unit_have_the_machines(results: Results) -> None:
    """Earlier documents have their columns, and no table of dashes."""
    assert "machine, s/GB" not in report.costs(results).header
    for peer in results.peers:
        peer.rounds = [{"connections": 1.0, "machine_gb": 1.0} for _ in peer.rounds]
    assert report.costs(results).header == ("", "machine, s/GB")
    titles = [grid.title for grid in report.all_grids(results)]
    assert not [title for title in titles if title.startswith("CPU of the bed")]
    assert "CPU of the bed" not in report.circumstances(results)


def test_what_is_missing_is_a_dash(results: Results) -> None:
    """A peer that is not here has no figures, and the kernel has no processes."""
    assert set(row(report.rates(results), "offload").values()) == {"offload", DASH}
    results.peers[2].rounds[0]["cpu_gb"] = 1.5
    assert row(report.costs(results), "nat")["processes, s/GB"] == "1.50"
    assert row(report.costs(results), "kernel DNAT")["processes, s/GB"] == DASH


def test_remarks_have_the_reason(results: Results) -> None:
    """One sentence per reason names all peers without figures; notes are listed too."""
    results.peers[0].notes.append("round 1: 3 of 100 requests failed")
    assert report.remarks(results) == [
        "Not measured: HAProxy: udp (no UDP).",
        "Not measured: offload; flow table of compiled, maglev (not in this version).",
        "kernel DNAT, round 1: 3 of 100 requests failed.",
    ]


def test_flow_table(results: Results) -> None:
    """Cost by size, growth, memory from 100,000 flows on, the longest stall and pause."""
    cells = row(report.flow_table(results), "compiled, rr")
    assert list(cells.values())[1:] == [
        "0.80",
        "0.90",
        "1.00",
        "×1.25",
        "260",
        "270",
        "30.0",
        "4.5",
    ]
    assert set(row(report.flow_table(results), "compiled, maglev").values()) == {
        "compiled, maglev",
        DASH,
    }


def test_bars_show_whether_they_are_met(results: Results) -> None:
    """Each cell has the figure, the bar and the verdict."""
    grid = report.bar_grid("Bars", ratio_bars(results))
    nat = row(grid, "nat-netlink to dnat")
    assert nat["connections/s"] == "0.60 (≥ 0.68, NOT MET)"
    assert nat["keepalive requests/s"] == "0.60 (≥ 0.6, met)"
    assert row(grid, "offload to dnat")["p50 latency"] == f"{DASH} (≤ 1.1)"


def test_circumstances(results: Results) -> None:
    """Date, machine, rounds and versions are in one sentence."""
    words = report.circumstances(results)
    for word in ("2030-01-02", "2 CPUs (Abacus)", "Linux 7.0", "3 interleaved", "HAProxy 2.6"):
        assert word in words
    assert "CPU of the bed: the whole machine's" in words
    results.cpu = "cgroup"
    assert "CPU of the bed: its control group" in report.circumstances(results)


def test_markdown_is_a_table() -> None:
    """Every line has as many cells as the header."""
    grid = Grid("Title", ("", "a"), (("x", "1"), ("y", "2")))
    assert grid.markdown().splitlines() == [
        "|  | a |",
        "| --- | ---: |",
        "| x | 1 |",
        "| y | 2 |",
    ]


def test_the_terminal_shows_every_grid(results: Results) -> None:
    """All grids render, with their titles and rows."""
    results.peers[2].rounds[0]["cpu_gb"] = 1.5
    console = Console(file=io.StringIO(), width=250)
    for grid in report.all_grids(results):
        console.print(grid.rich())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    titles = ("Rates and latency", "CPU of the bed", "CPU (", "Flow table", "Bars: ratios")
    for words in (*titles, "nat-netlink to dnat"):
        assert words in text


def test_a_run_of_the_core_alone_has_no_empty_tables(results: Results) -> None:
    """Tables without rows are left out."""
    results.core = []
    assert "Flow table" not in " ".join(grid.title for grid in report.all_grids(results))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(9_999.4, 0, "9999"), (12_345, 0, "12.3k"), (1.25, 1, "1.2"), (0.004, 2, "0.00")],
)
def test_number(value: float, digits: int, text: str) -> None:
    """Figures are as long as they are precise."""
    assert report.number(value, digits) == text


def test_sample_line() -> None:
    """A sample in one line, without the costs; an empty one has a text."""
    sample = {"connections": 12_345.0, "p50": 80.0, "bulk_up": 9.95, "cpu_gb": 1.0}
    assert report.sample_line(sample) == "connections 12.3k · p50 80 µs · bulk up 9.9 Gbit/s"
    assert report.sample_line({}) == "nothing measured"

"""Figures from the rounds of a flood."""

from __future__ import annotations

from bench.flood import NAMES, REFERENCE, Figures, table
from bench.peers import PEERS


def figures(*rounds: tuple[int, float, float]) -> Figures:
    """Figures of rounds: kept of 10, calm and flooded p50."""
    found = Figures()
    for kept, calm, flooded in rounds:
        under = {"tried": 10, "kept": kept, "new_tried": 4, "new_kept": 1, "p50": flooded}
        found.add({"tried": 10, "kept": 10, "p50": calm}, under, 59_999.6)
    return found


def test_a_row_has_medians_and_ratios() -> None:
    """Shares relative to the reference's, the median under flood relative to the calm one of the
    same round; missing figures are left out.
    """
    reference = figures((5, 1, 1), (8, 1, 1), (7, 1, 1))
    row = figures((9, 1, 3), (7, 2, 9), (1, 3, 1)).row("nat", reference)
    times = "2.00 → 3.00 (×3.0, 0.3–4.5)"
    assert row == ["nat", "70% (×1.00)", "25% (×1.00)", "-", times, "-", "60,000"]
    assert Figures().row("nat", reference) == ["nat", *"------"]


def test_every_way_of_forwarding_is_compared_with_the_kernels() -> None:
    """The table has a line for each, also for one that gave nothing."""
    peers = [PEERS[name] for name in NAMES]
    assert NAMES[0] == REFERENCE
    grid = table(peers, {name: Figures() for name in NAMES})
    assert grid.row_count == len(NAMES) == 5

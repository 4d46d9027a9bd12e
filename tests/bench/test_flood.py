"""What becomes of the rounds of a flood."""

from __future__ import annotations

from bench.flood import NAMES, REFERENCE, Figures, table
from bench.peers import PEERS


def test_a_row_has_medians_and_ratios() -> None:
    """The share is compared with the reference's, the flooded median with the calm one."""
    reference = Figures([0.5, 0.8, 0.7], [1.0], [1.0], [2.0], [60_000.0])
    figures = Figures([0.9, 0.7, 0.1], [1.0, 2.0, 3.0], [3.0, 9.0, 1.0], [5.0], [59_999.6])
    wanted = ["nat", "70%", "×1.00", "2.00", "3.00 (×1.5)", "5.0", "60,000"]
    assert figures.row("nat", reference) == wanted
    assert Figures().row("nat", reference) == ["nat", *"------"]


def test_every_way_of_forwarding_is_compared_with_the_kernels() -> None:
    """The table has a line for each, also for one that gave nothing."""
    peers = [PEERS[name] for name in NAMES]
    assert NAMES[0] == REFERENCE
    grid = table(peers, {name: Figures() for name in NAMES})
    assert grid.row_count == len(NAMES) == 5

"""The content of the picture, without drawing it."""

from __future__ import annotations

from bench.picture import SHOWN, panel
from bench.results import METRICS, Results


def test_a_panel_has_the_peers_that_were_there(results: Results) -> None:
    """One bar per peer, as long as its ratio to DNAT, with the figure beside it."""
    shown = panel(results, "connections")
    assert shown.labels == ["kernel DNAT", "HAProxy", "nat"]
    assert shown.ratios[0] == 1
    assert shown.texts == ["10.0k", "7000", "6000"]
    assert len(set(shown.colours)) == 3


def test_a_missing_figure_has_a_note(results: Results) -> None:
    """A peer without the figure has an empty bar with words."""
    del results.peers[1].rounds[0]["udp"]
    shown = panel(results, "udp")
    assert shown.ratios[1] is None
    assert shown.texts[1] == "not measured"


def test_panels_show_which_direction_is_better(results: Results) -> None:
    """Latency is better when it is less."""
    assert panel(results, "p50").title == "p50 latency (less is better)"
    assert set(SHOWN) <= set(METRICS)

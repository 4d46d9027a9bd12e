"""The counts of one backend."""

from __future__ import annotations

from paraglider.forward.proxy.counts import Tally


def test_counts_by_name() -> None:
    """Every field is there under its name, from zero on."""
    tally = Tally()
    assert set(tally.counts().values()) == {0}
    tally.sent += 5
    tally.retried += 1
    counts = tally.counts()
    assert (counts["sent"], counts["retried"], counts["received"]) == (5, 1, 0)

"""Tests of ``paraglider.daemon.web.history``: a quarter of an hour, in bounded memory."""

from __future__ import annotations

from typing import Any

from paraglider.daemon.web.history import MOST, SLOTS, STEP, VALUES, History

BEGIN = 1_700_000_000 // STEP * STEP


def sample(at: float, value: float | None, backends: int = 1) -> dict[str, Any]:
    """A sample of one service whose every value is ``value``."""
    row = dict.fromkeys(VALUES, value)
    return {
        "at": at,
        "totals": row,
        "services": [{"service": "web", **row}],
        "backends": [{"service": "web", "backend": f"b{i}", **row} for i in range(backends)],
    }


def test_slots_have_means() -> None:
    """A slot has the means of its samples; the current slot is not returned."""
    history = History()
    for second in range(2 * STEP + 1):
        history.record(sample(BEGIN + second, float(second)))
    shown = history.plain()
    assert shown["at"] == [BEGIN, BEGIN + STEP]
    assert shown["total"]["flows"] == shown["series"]["web"]["flows"] == [1.0, 4.0]
    assert history.plain("web")["series"]["b0"]["flows_per_second"] == [1.0, 4.0]
    assert history.plain("web")["total"]["flows"] == [1.0, 4.0]
    assert history.plain("other")["series"] == {}
    assert history.plain("other")["total"]["flows"] == [None, None]


def test_empty() -> None:
    """Without samples there are no values."""
    assert History().plain() == {
        "step": STEP,
        "at": [],
        "total": {name: [] for name in VALUES},
        "series": {},
    }


def test_gaps_are_unknown() -> None:
    """Slots without samples have no value; slots beyond the ring are dropped."""
    history = History()
    history.record(sample(BEGIN, 1.0))
    history.record(sample(BEGIN + STEP, None))
    history.record(sample(BEGIN + 4 * STEP, 2.0))
    history.record(sample(BEGIN + 5 * STEP, 3.0))
    assert history.plain()["total"]["flows"] == [1.0, None, None, None, 2.0]
    for slot in range(6, SLOTS + 3):
        history.record(sample(BEGIN + slot * STEP, 5.0))
    shown = history.plain()
    assert len(shown["at"]) == SLOTS - 2  # the oldest in the ring is a gap, and left out
    assert shown["total"]["flows"][:3] == [2.0, 3.0, 5.0]


def test_a_series_that_is_gone_leaves() -> None:
    """It is removed with its last slot, and its place is reused."""
    history = History()
    history.record(sample(BEGIN, 1.0, backends=3))
    for slot in range(1, SLOTS + 2):
        history.record(sample(BEGIN + slot * STEP, 1.0))
    assert set(history.plain("web")["series"]) == {"b0"}


def test_bounds() -> None:
    """At most MOST series; after a jump of the clock the history restarts, a
    step back is ignored.
    """
    history = History()
    history.record(sample(BEGIN, 1.0, backends=2 * MOST))
    assert len(history.plain("web")["series"]) == MOST - 2
    history.record(sample(BEGIN + STEP, 1.0))
    history.record(sample(BEGIN, 99.0))
    assert history.plain()["total"]["flows"] == [1.0]
    history.record(sample(BEGIN - 10 * SLOTS * STEP, 1.0))
    assert history.plain()["at"] == []

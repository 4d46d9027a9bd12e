"""Tests of ``paraglider.health.flapping``: what falls often is held down, for longer and longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paraglider.health.flapping import LONGEST_HOLD, PERIOD, FlapHold


def test_the_last_fall_of_a_period_begins_a_hold() -> None:
    """Falls that are further apart do not."""
    one = FlapHold(2)
    assert [one.fell(now, now - 1) for now in (0.0, PERIOD, 2 * PERIOD)] == [0.0, 0.0, 0.0]
    assert one.fell(2 * PERIOD + 1, 2 * PERIOD) == PERIOD


def test_a_hold_doubles_until_it_was_up_for_a_period() -> None:
    """At most so often."""
    one, now, holds = FlapHold(2), 0.0, []
    for _ in range(8):
        hold = one.fell(now, now - 1)
        holds.append(hold)
        now += hold + 1
    assert holds == [0.0, 60.0, 120.0, 240.0, 480.0, 960.0, 960.0, LONGEST_HOLD]
    assert one.fell(now + PERIOD, now) == 0.0


@given(
    falls=st.integers(1, 4),
    pauses=st.lists(st.floats(0.01, 90.0, allow_nan=False), min_size=1, max_size=40),
)
def test_it_never_falls_more_often(falls: int, pauses: list[float]) -> None:
    """In any period, whatever comes: it rises again when the hold is over."""
    one, now, up_since, times = FlapHold(falls), 0.0, 0.0, []
    for pause in pauses:
        now = up_since + pause
        times.append(now)
        up_since = now + one.fell(now, up_since)
    for index, time in enumerate(times[falls:]):
        assert time - times[index] >= PERIOD - 1e-6

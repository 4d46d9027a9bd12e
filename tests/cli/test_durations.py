"""Tests of ``paraglider.cli.durations``: durations on the command line."""

from __future__ import annotations

from typing import Any

import click
import pytest

from paraglider.cli.durations import DurationRange

KIND = DurationRange(0.1, 600)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("30", 30), ("0.5", 0.5), ("30s", 30), ("500ms", 0.5), (2.0, 2), ("2m", 120)],
)
def test_seconds(given: Any, seconds: float) -> None:
    """With and without a unit, and a default."""
    assert KIND.convert(given, None, None) == seconds


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("soon", "'soon' is no duration; write seconds, or a number with ms, s, m, h or d"),
        ("nan", "'nan' is no duration"),
        ("11m", "660.* is not in the range 0.1<=x<=600"),
        ("10ms", "0.01 is not in the range"),
        ("0", "0.* is not in the range"),
    ],
)
def test_mistakes(given: str, reason: str) -> None:
    """No duration, and one out of range."""
    with pytest.raises(click.BadParameter, match=reason):
        KIND.convert(given, None, None)


def test_a_command(daemon: Any, say: Any) -> None:
    """`--wait` takes one: the wait is over after it."""
    daemon.answers["/v1/node"] = (200, {"state": "drain", "seconds": 63.0, "kept": True})
    daemon.answers["/v1/services"] = (503, {"error": "the supervisor does not answer"})
    code, out, err = say("node", "drain", "--wait", "100ms")
    assert (code, err) == (0, "")
    assert out.endswith("packets may still come after 0.1 s\n")
    code, out, err = say("node", "drain", "--wait", "100x")
    assert (code, out) == (1, "")
    assert "'100x' is no duration; write seconds" in err

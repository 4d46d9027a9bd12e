"""Faults are contained, and logged once with their traceback."""

from __future__ import annotations

import pytest
import structlog

from paraglider.daemon.processes.faults import QUIET, Faults


def test_a_fault_is_logged_once_and_contained() -> None:
    """A fault at another place is another one; much later the same is logged again."""
    now = [1000.0]
    with structlog.testing.capture_logs() as lines:
        faults = Faults(lambda: now[0])
        for _ in range(5):
            with faults.contained("a message"):
                raise ZeroDivisionError("by nothing")
        with faults.contained("a message"):
            raise KeyError("do")
        now[0] += QUIET
        for _ in range(5):
            with faults.contained("a message"):
                raise KeyError("do")
    assert [line["error"] for line in lines] == [
        "ZeroDivisionError('by nothing')",
        "KeyError('do')",
        "KeyError('do')",
    ]
    assert all(line["exc_info"].__traceback__ is not None for line in lines)
    assert faults.last == {"a message": (1000.0 + QUIET, "KeyError")}


def test_the_end_is_no_fault() -> None:
    """SystemExit and KeyboardInterrupt pass."""
    with pytest.raises(SystemExit), Faults().contained("an end"):
        raise SystemExit(3)

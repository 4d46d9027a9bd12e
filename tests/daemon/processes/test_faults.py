"""Faults: contained, and told once with their traceback."""

from __future__ import annotations

import pytest
import structlog

from paraglider.daemon.processes.faults import QUIET, Faults


def test_a_fault_is_told_once_and_contained() -> None:
    """Another place is another fault; much later the same is told again."""
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
    """What ends the process on purpose goes through."""
    with pytest.raises(SystemExit), Faults().contained("an end"):
        raise SystemExit(3)

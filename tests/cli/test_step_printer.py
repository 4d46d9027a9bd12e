"""Tests of ``paraglider.cli.step_printer``: one line a step, and the sum."""

from __future__ import annotations

import pytest

from paraglider.cli.step_printer import StepPrinter


def test_steps_and_their_sum(capsys: pytest.CaptureFixture[str]) -> None:
    """One line per step, then the numbers of steps by outcome."""
    told = StepPrinter()
    assert told.empty
    for outcome, what in (("done", "a"), ("unchanged", "b"), ("done", "c")):
        told(outcome, what)
    assert not told.empty
    told.print_totals()
    assert capsys.readouterr().out.splitlines() == [
        "done        a",
        "unchanged   b",
        "done        c",
        "2 done, 1 unchanged",
    ]

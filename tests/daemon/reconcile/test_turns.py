"""A turn of the loop: every step that is due, and none that ends another."""

from __future__ import annotations

from math import inf

import structlog

from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.reconcile.turns import FIRST_PAUSE, LONGEST_PAUSE, Turns
from paraglider.errors import PlatformError


class Steps:
    """A step that fails as long as ``error`` is set, and one that does not."""

    def __init__(self) -> None:
        self.error: Exception | None = PlatformError("nft is missing")
        self.bad: list[float] = []
        self.good: list[float] = []
        self.faults = Faults()
        self.turns = Turns({"the hash": self._fail, "states": self._work}, self.faults)

    def _fail(self, now: float) -> float:
        self.bad.append(now)
        if self.error is not None:
            raise self.error
        return inf

    def _work(self, now: float) -> float:
        self.good.append(now)
        return 7.0


def test_a_step_that_fails_is_tried_again_with_backoff() -> None:
    """The log has the step and the pause; other steps run at every turn."""
    steps, now = Steps(), 100.0
    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            now += steps.turns.run(now)
    pauses = [later - one for one, later in zip(steps.bad, steps.bad[1:], strict=False)]
    assert [round(pause, 6) for pause in pauses[:4]] == [FIRST_PAUSE * n for n in (1, 2, 4, 8)]
    assert max(pauses) <= LONGEST_PAUSE + 1e-6
    assert len(steps.good) == 20
    assert lines[0]["event"] == "the hash: failed, tried again"
    assert (lines[0]["error"], lines[0]["after"]) == ("nft is missing", FIRST_PAUSE)


def test_a_step_that_works_again() -> None:
    """It is due at its own time, and starts with the first pause at its next failure."""
    steps = Steps()
    assert steps.turns.run(0.0) == FIRST_PAUSE
    steps.error = None
    assert steps.turns.run(FIRST_PAUSE) == 7.0
    steps.error = PlatformError("nft is missing")
    assert steps.turns.run(20.0) == FIRST_PAUSE


def test_an_unexpected_error_is_a_fault() -> None:
    """The log has the traceback and the name of the step."""
    steps = Steps()
    steps.error = ZeroDivisionError()
    with structlog.testing.capture_logs():
        steps.turns.run(0.0)
    assert steps.faults.last["the hash"][1] == "ZeroDivisionError"
    assert len(steps.good) == 1

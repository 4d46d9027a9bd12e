"""Holds down what flaps: what falls often must wait before it may rise again.

After so many falls within PERIOD it is held down for PERIOD. If it falls again before it has been
up for PERIOD it is held twice as long, up to LONGEST_HOLD; after being up that long the hold is
reset. So nothing falls more often than that in any PERIOD.

Lives here: ``FlapHold``; ``rise_and_fall`` holds backends by it, ``announcer.routes`` routes.
Rules: pure; time is an argument (monotonic seconds).
"""

from __future__ import annotations

from collections import deque
from typing import Final

PERIOD: Final = 60.0
LONGEST_HOLD: Final = 960.0


class FlapHold:
    """The falls of one thing; the last of ``falls`` within PERIOD begins a hold."""

    __slots__ = ("_falls", "_hold")

    def __init__(self, falls: int) -> None:
        self._falls: deque[float] = deque(maxlen=falls)
        self._hold = 0.0  # length of the last hold; 0 after a calm period

    def fell(self, now: float, up_since: float) -> float:
        """It has fallen, having been up since ``up_since``; returns the seconds for which to hold
        it down, 0 if it does not flap.
        """
        self._falls.append(now)
        if now - up_since >= PERIOD:
            self._hold = 0.0
        if self._hold:
            self._hold = min(2 * self._hold, LONGEST_HOLD)
        elif len(self._falls) == self._falls.maxlen and now - self._falls[0] < PERIOD:
            self._hold = PERIOD
        return self._hold

"""One turn of the daemon's loop: runs every step that is due, independently of the others.

A step that fails is logged with its name and tried again after a pause that doubles; the others
continue.

Lives here: ``Turns``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from paraglider.daemon import log
from paraglider.daemon.processes.faults import Faults
from paraglider.errors import ParagliderError

#: seconds until a step that failed is tried again, at first and at most
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 30.0

Step = Callable[[float], float]
"""Does the work due at a time (monotonic seconds) and returns the seconds until the next."""


class Turns:
    """``steps`` by their names in the log; unexpected exceptions go into ``faults``."""

    def __init__(self, steps: Mapping[str, Step], faults: Faults) -> None:
        self._steps = steps
        self._faults = faults
        self._failing: dict[str, tuple[float, float]] = {}  # name → when to retry, and the pause
        self._log: Any = log.logger()

    def run(self, now: float) -> float:
        """Run every step that is due; returns the seconds until the next is due."""
        pause = inf
        for name, step in self._steps.items():
            again, before = self._failing.get(name, (now, 0.0))
            if again > now:
                pause = min(pause, again - now)
                continue
            try:
                pause = min(pause, step(now))
                self._failing.pop(name, None)
            except Exception as error:  # noqa: BLE001 - it ends here, and no other step with it
                wait = min(max(FIRST_PAUSE, 2 * before), LONGEST_PAUSE)
                self._failing[name] = now + wait, wait
                pause = min(pause, wait)
                if isinstance(error, ParagliderError | OSError):
                    self._log.error(f"{name}: failed, tried again", error=str(error), after=wait)
                else:
                    self._faults.note(name, error)
        return pause

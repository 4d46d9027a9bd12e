"""Converts check results to up and down, with rise and fall counts: one object per backend.

The rules:

* A backend is up until its first result. Before its first pass one failure takes it down; after
  that it takes ``fall`` consecutive failures. ``rise`` consecutive passes bring it up.
* The next check is due ``interval`` after the begin of the last one. While the state is in doubt
  (passes while down, failures while up, no result yet) it is a quarter of that, at least FASTEST.
  Jitter makes it up to a tenth earlier, never later, so that the checks of many backends spread.
* A hint (an unanswered flow) makes the next check due at once, or a pause after the begin of the
  last one if that is later: one second, or the interval in doubt if that is shorter. More hints do
  not make checks more frequent.
* Flapping (``flapping``): after FALLS falls within PERIOD a backend is held down. Passes while held
  count: it comes up with the first pass after the hold.

Pure: time (monotonic seconds) and chance (0 to 1) are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from paraglider.core.pool import Event
from paraglider.health.flapping import FlapHold

FASTEST: Final = 0.1
HINTED: Final = 1.0
FALLS: Final = 3
#: factor of the interval while in doubt
_IN_DOUBT: Final = 0.25
#: largest reduction of the wait by chance, as a factor
_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The configured seconds between checks, passes to come up, failures to go down."""

    interval: float
    rise: int
    fall: int

    @property
    def fast(self) -> float:
        """Seconds between checks while in doubt."""
        return min(self.interval, max(FASTEST, self.interval * _IN_DOUBT))

    @property
    def hinted(self) -> float:
        """Seconds between checks while hints come."""
        return min(self.fast, HINTED)


class RiseAndFall:
    """The health of one backend, by the rules of the module.

    ``up`` is the state, ``series`` the number of consecutive results against it, ``due`` the time
    of the next check, ``held_until`` when a flapping backend may come up again (0: not held). A
    backend that is known to be down is created with ``up`` False.
    """

    __slots__ = (
        "_flapping",
        "_hinted",
        "_proven",
        "_started",
        "_up_since",
        "due",
        "held_until",
        "rules",
        "series",
        "up",
    )

    def __init__(self, rules: Thresholds, now: float, chance: float, *, up: bool = True) -> None:
        self.rules = rules
        self.up = up
        self.series = 0
        self.due = now + rules.fast * chance
        self.held_until = 0.0
        self._proven = not up
        self._hinted = False
        self._started = now
        self._up_since = now
        self._flapping = FlapHold(FALLS)

    @property
    def in_doubt(self) -> bool:
        """True while the next results may change the state."""
        return self.series > 0 or not self._proven

    def check_started(self, now: float) -> None:
        """A check begins."""
        self._started = now
        self._hinted = False

    def result(self, passed: bool, now: float, chance: float) -> Event | None:
        """Record the result of the last check; returns the backend's event, if any."""
        proven, self._proven = self._proven, True
        event = None
        if passed == self.up:
            self.series = 0
        else:
            self.series += 1
            if passed and self.series >= self.rules.rise and now >= self.held_until:
                event = self._rise(now)
            elif not passed and (self.series >= self.rules.fall or not proven):
                event = self._fall(now)
        rules = self.rules
        wait = rules.fast if self.in_doubt else rules.interval
        if self._hinted and self.up:
            wait = rules.hinted
        self.due = max(now, self._started + wait * (1 - _JITTER * chance))
        return event

    def hint(self, now: float) -> bool:
        """Check an up backend sooner; returns whether ``due`` changed."""
        if not self.up:
            return False
        self._hinted = True
        sooner = max(now, self._started + self.rules.hinted)
        if sooner >= self.due:
            return False
        self.due = sooner
        return True

    def set_rules(self, rules: Thresholds, now: float) -> None:
        """Set new thresholds; the backend's state and history stay."""
        self.rules = rules
        self.due = min(self.due, max(now, self._started + rules.interval))

    def _rise(self, now: float) -> Event:
        self.up = True
        self.series = 0
        self.held_until = 0.0
        self._up_since = now
        return Event.CHECK_PASSED

    def _fall(self, now: float) -> Event:
        self.up = False
        self.series = 0
        if hold := self._flapping.fell(now, self._up_since):
            self.held_until = now + hold
        return Event.CHECK_FAILED

"""From the results of checks to up and down: one machine a backend.

The rules, all of them:

* A backend is taken for up until something is known. Unproven, one failure takes it down; after
  its first pass it takes ``fall`` failures in a row. ``rise`` passes in a row bring it up.
* The next check is due ``interval`` after the last one began; while a series is open (some passes
  while down, some failures while up, nothing known yet) a quarter of that, though never less than
  FASTEST. Chance makes it up to a tenth sooner, never later, so that many backends spread out and
  no promise about time is broken.
* A hint (a flow went unanswered) makes the next check due at once, or a pause after the last one
  began if that is later: a second, or less where checks in doubt are denser. However many hints
  come, checks are no denser than that.
* FALLS falls within PERIOD and it is held down for PERIOD, however well it does. One that falls
  again before it has been up for PERIOD is held twice as long, up to LONGEST_HOLD; one that has
  been up that long begins anew. So no backend falls more than FALLS times in any PERIOD. Passes
  while held count: it comes up with the first one after.

Pure: time (seconds that only grow) and chance (from 0 up to 1) are arguments.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from paraglider.core.pool import Event

FASTEST: Final = 0.1
HINTED: Final = 1.0
PERIOD: Final = 60.0
FALLS: Final = 3
LONGEST_HOLD: Final = 960.0
#: of the interval, in doubt
_IN_DOUBT: Final = 0.25
#: of the wait, that chance may take away
_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the file says: seconds between checks, passes to come up, failures to go down."""

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
    """The health of one backend; the module says by which rules.

    ``up`` is the state, ``series`` the results in a row that speak against it, ``due`` when to
    check next, ``held_until`` when a flapping backend may come up again (0: it is not held). One
    that is known to be down begins with ``up`` False.
    """

    __slots__ = (
        "_falls",
        "_hinted",
        "_hold",
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
        self._falls: deque[float] = deque(maxlen=FALLS)
        self._hold = 0.0  # the last one's length; 0 after a calm time

    @property
    def in_doubt(self) -> bool:
        """True while the next results may change the state."""
        return self.series > 0 or not self._proven

    def began(self, now: float) -> None:
        """A check begins."""
        self._started = now
        self._hinted = False

    def result(self, passed: bool, now: float, chance: float) -> Event | None:
        """The check that began last ended; what that means for the backend, if anything."""
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
        """Something speaks against an up backend: check sooner; True when that changes ``due``."""
        if not self.up:
            return False
        self._hinted = True
        sooner = max(now, self._started + self.rules.hinted)
        if sooner >= self.due:
            return False
        self.due = sooner
        return True

    def follow(self, rules: Thresholds, now: float) -> None:
        """Other rules from here on; what is known of the backend stays."""
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
        self._falls.append(now)
        if now - self._up_since >= PERIOD:
            self._hold = 0.0
        if self._hold:
            self._hold = min(2 * self._hold, LONGEST_HOLD)
        elif len(self._falls) == FALLS and now - self._falls[0] < PERIOD:
            self._hold = PERIOD
        if self._hold:
            self.held_until = now + self._hold
        return Event.CHECK_FAILED

"""What is wrong with the daemon and its host now: one table, from which `paraglider health` reads.

Every source (the assessor of processes, the host helper, …) reports the complete set of its
conditions each time; a condition that it no longer reports has ended. So a source needs no memory,
and a source that restarts after a failure ends the conditions that no longer hold.

    degraded     the service continues, with less than it should have
    unhealthy    clients are not served, or an established flow can be lost

Lives here: ``Condition``, ``Conditions``, ``worst``.
Rules: a condition is logged once when it begins, when it becomes worse, and when it ends; one that
returns within QUIET seconds of its last line is not logged again. All are warnings: errors in the
log are failures of the daemon. Pure except for the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from paraglider.daemon import log

Severity = Literal["degraded", "unhealthy"]

HEALTHY: Final = "healthy"
DEGRADED: Final[Severity] = "degraded"
UNHEALTHY: Final[Severity] = "unhealthy"
#: seconds between two log lines about the begin of the same condition
QUIET: Final = 60.0
#: most conditions of one source; one more has the number of the others
MOST: Final = 256


@dataclass(frozen=True, slots=True)
class Condition:
    """A problem: its severity, and one line with the cause and the remedy."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A condition that holds now: its source, its object, its begin (monotonic seconds)."""

    source: str
    object: str
    condition: Condition
    since: float

    @property
    def line(self) -> str:
        """The line in the log and in `paraglider health`."""
        return f"{self.object}: {self.condition.text}"


class Conditions:
    """The conditions of all sources; ``clock`` is monotonic seconds. ``version`` grows with each
    change.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.version = 0
        self._standing: dict[str, dict[str, Standing]] = {}
        self._logged: dict[tuple[str, str], float] = {}  # when its begin was last logged
        self._log: Any = log.logger()

    def __iter__(self) -> Iterator[Standing]:
        """The conditions: the worst first, then by source, in the order of its report."""
        every = [s for source in self._standing.values() for s in source.values()]
        yield from sorted(every, key=lambda s: s.condition.severity != UNHEALTHY)

    @property
    def status(self) -> str:
        """See ``worst``."""
        return worst(self)

    def report(self, source: str, found: Mapping[str, Condition], *, logged: bool = True) -> None:
        """Replace the conditions of ``source`` by ``found``, by object; ``logged`` is false if they
        are logged elsewhere.
        """
        now = self._clock()
        before = self._standing.get(source, {})
        after: dict[str, Standing] = {}
        for name, condition in _bounded(source, found).items():
            known = before.get(name)
            begun = known.since if known is not None else now
            after[name] = standing = Standing(source, name, condition, begun)
            if not logged:
                continue
            if known is None:
                self._begin(standing, now)
            elif known.condition.severity == DEGRADED and condition.severity == UNHEALTHY:
                self._log_standing(standing)
        for name, over in before.items():
            if name not in after and (source, name) in self._logged:
                self._log.info(f"{name}: no longer {over.condition.severity}", was=_cause(over))
        self.version += after != before
        self._standing[source] = after
        self._logged = {
            key: at
            for key, at in self._logged.items()
            if now - at < QUIET or key[1] in self._standing.get(key[0], {})
        }

    def _begin(self, standing: Standing, now: float) -> None:
        key = standing.source, standing.object
        if now - self._logged.get(key, -QUIET) >= QUIET:
            self._logged[key] = now
            self._log_standing(standing)

    def _log_standing(self, standing: Standing) -> None:
        self._log.warning(standing.line, severity=standing.condition.severity)


def worst(standing: Iterable[Standing]) -> str:
    """HEALTHY, or the worst severity of ``standing``."""
    found = {each.condition.severity for each in standing}
    return next((s for s in (UNHEALTHY, DEGRADED) if s in found), HEALTHY)


def _cause(over: Standing) -> str:
    return over.condition.text.split(";")[0]


def _bounded(source: str, found: Mapping[str, Condition]) -> Mapping[str, Condition]:
    if len(found) <= MOST:
        return found
    kept = dict(list(found.items())[:MOST])
    left = list(found.values())[MOST:]
    worst: Severity = "unhealthy" if any(c.severity == UNHEALTHY for c in left) else "degraded"
    return {**kept, source: Condition(worst, f"{len(left)} more objects have problems")}

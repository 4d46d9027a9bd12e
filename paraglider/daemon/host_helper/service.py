"""The work of the host helper: compares the host with the set-up, restores it, reports conditions.

    on events      the part of the host that may have changed, after a moment in which more may come
    periodically   links every PERIOD seconds, since the kernel sends no events for proxy entries
                   and sysctls; the filter once a minute, in case an event was lost
    on a failure   again after a pause that doubles, up to LONGEST_PAUSE

A slow comparison delays the next one: on a host with very many rules at most a third of the time is
spent on comparisons after events, and a twentieth on periodic ones.

Lives here: ``HostService``.
Rules: time is an argument. A missing object is reported before it is restored, so that `paraglider
health` has it meanwhile; the log gets one line per object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from paraglider.daemon.messages import HostConditions, Message, Severity, TablesRestored
from paraglider.errors import OperatorError, ParagliderError
from paraglider.host.reconcile import (
    PARTS,
    Choose,
    MissingObject,
    Part,
    RepairResult,
    SetupRunningError,
)

#: seconds between two periodic comparisons
PERIOD: Final[Mapping[Part, float]] = {"links": 1.0, "filter": 60.0, "foreign": 60.0}
#: seconds in which more events may come
SETTLE: Final = 0.05
#: seconds until a comparison is repeated while a set-up is running
RETRY: Final = 0.25
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: lines of the log that one comparison writes about what it restored
LINES: Final = 20

Found = dict[str, tuple[Severity, str]]
Notify = Callable[[Message], None]


class HostReconciler(Protocol):
    """What the service needs of ``host.reconcile.Reconciler``."""

    def reconcile(self, part: Part, choose: Choose = ...) -> RepairResult:
        """Compare and restore; raises ``ParagliderError``."""

    def families(self) -> frozenset[int]:
        """The families that are set up; raises ``ParagliderError``."""


class HostService:
    """Compares the host by ``reconciler`` and reports by ``notify``; ``needed`` are the families
    that the daemon needs to be set up.
    """

    def __init__(
        self,
        reconciler: HostReconciler,
        notify: Notify,
        logger: Any,
        needed: Iterable[int],
        clock: Callable[[], float],
    ) -> None:
        self._reconciler = reconciler
        self._notify = notify
        self._log = logger
        self._clock = clock
        self._needed = frozenset(needed)
        self._due: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._duration: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._ended: dict[Part, float] = dict.fromkeys(PARTS, -math.inf)
        self._found: dict[str, Found] = {}
        self._failing: dict[Part, dict[str, tuple[float, float, str]]] = {p: {} for p in PARTS}
        self._reported: Found = {}

    def set_families(self, families: Iterable[int]) -> None:
        """Set the families that must be set up."""
        self._needed = frozenset(families)

    def mark_changed(self, parts: Iterable[Part]) -> None:
        """Note that ``parts`` may have changed."""
        for part in parts:
            soon = max(self._clock() + SETTLE, self._ended[part] + 2 * self._duration[part])
            self._due[part] = min(self._due[part], soon)

    def wait(self) -> float:
        """Seconds until ``reconcile_due`` has something to do."""
        return max(0.0, min(self._due.values()) - self._clock())

    def reconcile_due(self) -> None:
        """Compare one part of the host that is due, the quick one first."""
        now = self._clock()
        for part in reversed(PARTS):
            if self._due[part] <= now:
                self._reconcile(part)
                return

    def _reconcile(self, part: Part) -> None:
        begun = self._clock()
        try:
            result = self._reconciler.reconcile(part, lambda missing: self._choose(part, missing))
            set_up = self._reconciler.families()
        except SetupRunningError:
            self._due[part] = self._clock() + RETRY
            return
        except (ParagliderError, OSError) as error:
            self._not_readable(part, error)
            return
        ended = self._clock()
        self._duration[part], self._ended[part] = ended - begun, ended
        self._due[part] = ended + max(PERIOD[part], 20 * self._duration[part])
        self._failing[part].pop("", None)
        self._restored(result)
        self._failed(part, result, ended)
        self._set_conditions(part, result.missing, {a.name for a in result.restored})
        self._found["set-up"] = {
            f"set-up of IPv{family}": (
                "unhealthy",
                "the host is not set up for it; run paraglider.config",
            )
            for family in sorted(self._needed - set_up)
        }
        self._report()

    def _choose(self, part: Part, missing: tuple[MissingObject, ...]) -> list[MissingObject]:
        """Report what is missing, and return what to restore now."""
        self._set_conditions(part, missing, set())
        self._report()
        now, failing = self._clock(), self._failing[part]
        return [a for a in missing if a.name not in failing or failing[a.name][0] <= now]

    def _set_conditions(
        self, part: Part, missing: Iterable[MissingObject], restored: set[str]
    ) -> None:
        """Set the conditions of ``part``: what is ``missing`` and not ``restored``."""
        found: Found = {}
        for item in missing:
            failing = item.name in self._failing[part]
            if item.name in restored or (item.new and not failing):
                continue
            how: Severity = "unhealthy" if item.vital else "degraded"
            if item.step is None:
                found[item.name] = (how, item.remedy)
            elif failing:
                why = self._failing[part][item.name][2]
                found[item.name] = (how, f"missing, cannot be restored: {why}")
            else:
                found[item.name] = (how, "missing; it is being restored")
        self._found[part] = found

    def _restored(self, result: RepairResult) -> None:
        for item in result.restored[:LINES]:
            if item.new:
                self._log.info("host changed", what=item.name)
            else:
                self._log.warning("missing on the host, restored", object=item.name)
        if len(result.restored) > LINES:
            more = len(result.restored) - LINES
            self._log.warning("more objects missing on the host, restored", objects=more)
        if result.recreated:
            self._notify(TablesRestored(families=result.recreated))

    def _failed(self, part: Part, result: RepairResult, now: float) -> None:
        """Note what could not be restored, and when to retry."""
        failing = self._failing[part]
        names = {item.name for item in result.missing} - {a.name for a in result.restored}
        for name in [name for name in failing if name not in names]:
            del failing[name]
        for name, why in result.failed.items():
            pause = self._pause(failing.get(name))
            failing[name] = (now + pause, pause, why)
        if failing:
            again = min(at for at, _, _ in failing.values())
            self._due[part] = min(self._due[part], max(again, now + SETTLE))

    def _not_readable(self, part: Part, error: ParagliderError | OSError) -> None:
        failing = self._failing[part]
        pause = self._pause(failing.get(""))
        failing[""] = (0.0, pause, str(error))
        self._due[part] = self._clock() + pause
        fault = "see what is missing" if not isinstance(error, OperatorError) else ""
        text = f"it cannot be read: {error}" + (f"; {fault}" if fault else "")
        self._found[part] = {f"host: {part}": ("degraded", text)}
        self._report()

    def _pause(self, before: tuple[float, float, str] | None) -> float:
        return FIRST_PAUSE if before is None else min(2 * before[1], LONGEST_PAUSE)

    def _report(self) -> None:
        """Report all conditions, if they have changed."""
        found: Found = {}
        for part in self._found.values():
            found |= part
        if found != self._reported:
            self._reported = found
            self._notify(HostConditions.of(found))

"""What the hub and the checker say to each other, as plain data that JSON carries.

To the checker:
    {"do": "targets", "targets": [TARGET, …], "failover": FAILOVER | null}
        this is all there is to look at from here on; what stays keeps what is known of it
    {"do": "hint", "service": S, "backend": B}
        a flow went unanswered: look sooner
From the checker:
    {"do": "report", "service": S, "backend": B, "passed": true, "detail": "status 200",
     "duration": 0.012, "at": 1234.5}
        how one look went; "passed" is null where it could not take place, for a cause of ours
    {"do": "verdict", "service": S, "backend": B, "event": "check-failed", "detail": …, "at": …,
     "held_until": 0}
        a backend went up or down
    {"do": "joined" | "left", "address": A, "detail": …, "at": …}
        failover found a host that no service lists, or lost one that it had found

Lives here: one class for each of these, ``Target`` and ``Scope`` among them.
Rules: times are monotonic seconds, the same for all processes of a host. Both ends are ours, yet
``plain`` and ``of`` are the only way across, and ``of`` judges what comes. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

from paraglider.config.types import IPAddress
from paraglider.core.pool import Event
from paraglider.health.fields import flag, name, number, text
from paraglider.health.targets import Scope, Target

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Targets:
    """All that there is to look at; ``scope`` is None without failover."""

    do: ClassVar[str] = "targets"
    targets: tuple[Target, ...]
    scope: Scope | None = None

    def plain(self) -> Plain:
        """For ``order``."""
        scope = None if self.scope is None else self.scope.plain()
        targets = [target.plain() for target in self.targets]
        return {"do": self.do, "targets": targets, "failover": scope}


@dataclass(frozen=True, slots=True)
class Hint:
    """Something speaks against a backend."""

    do: ClassVar[str] = "hint"
    service: str
    backend: str

    def plain(self) -> Plain:
        """For ``order``."""
        return {"do": self.do, **asdict(self)}


def order(plain: Mapping[str, Any]) -> Targets | Hint:
    """What the hub said; raises KeyError, TypeError or ValueError for what is no order."""
    if plain["do"] == Targets.do:
        scope = None if plain["failover"] is None else Scope.of(plain["failover"])
        return Targets(tuple(Target.of(target) for target in plain["targets"]), scope)
    if plain["do"] == Hint.do:
        return Hint(str(plain["service"]), str(plain["backend"]))
    raise ValueError(f"{plain['do']} is no order to the checker")


@dataclass(frozen=True, slots=True)
class Report:
    """How one look at a backend went: ``detail`` is one line, ``duration`` seconds.

    ``passed`` is None where the look could not take place, for a cause that is this host's.
    """

    do: ClassVar[str] = "report"
    service: str
    backend: str
    passed: bool | None
    detail: str
    duration: float
    at: float

    def plain(self) -> Plain:
        """For ``told``."""
        return {"do": self.do, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A backend went up or down; ``held_until`` is when a flapping one may come back, or 0."""

    do: ClassVar[str] = "verdict"
    service: str
    backend: str
    event: Event
    detail: str
    at: float
    held_until: float = 0.0

    def plain(self) -> Plain:
        """For ``told``."""
        return {"do": self.do, **asdict(self), "event": self.event.value}


@dataclass(frozen=True, slots=True)
class Found:
    """Failover found a host that no service lists (``joined``), or lost one that it had found."""

    joined: bool
    address: IPAddress
    detail: str
    at: float

    def plain(self) -> Plain:
        """For ``told``."""
        do = "joined" if self.joined else "left"
        return {"do": do, "address": str(self.address), "detail": self.detail, "at": self.at}


News = Report | Verdict | Found


#: what a check may do to a backend; the rest of ``Event`` is the operator's
EVENTS: Final = frozenset((Event.CHECK_PASSED, Event.CHECK_FAILED))
#: seconds that a look may have taken at most, and that a clock may show
_LONGEST: Final = 86400.0
_LATEST: Final = 1e10


def told(plain: Mapping[str, Any]) -> News:
    """What the checker said; raises KeyError, TypeError or ValueError for what is no news."""
    do = plain["do"]
    at, detail = number(plain, "at", 0.0, _LATEST), text(plain, "detail")
    if do in ("joined", "left"):
        return Found(do == "joined", ipaddress.ip_address(name(plain, "address")), detail, at)
    service, backend = name(plain, "service"), name(plain, "backend")
    if do == Report.do:
        passed = None if plain["passed"] is None else flag(plain, "passed")
        return Report(
            service, backend, passed, detail, number(plain, "duration", 0.0, _LONGEST), at
        )
    if do == Verdict.do:
        event, held = Event(name(plain, "event")), number(plain, "held_until", 0.0, _LATEST)
        if event not in EVENTS:
            raise ValueError("`event` is not a check's")
        return Verdict(service, backend, event, detail, at, held)
    raise ValueError("`do` is no news of the checker")

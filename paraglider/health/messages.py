"""What the hub and the checker say to each other, as plain data that JSON carries.

To the checker:
    {"do": "targets", "targets": [TARGET, …], "gone": [[S, B], …], "whole": true,
     "failover": FAILOVER | null}
        the targets that are new or changed, and those that are no targets any more; with
        ``whole``, all others are none either. What is known of the others stays
    {"do": "hints", "backends": [[S, B], …]}
        flows to these went unanswered: check them sooner
From the checker:
    {"do": "news", "news": [NEWS, …]}
        results, some at a time; each of NEWS is one of
    {"do": "report", "service": S, "backend": B, "passed": true, "code": "L7OK",
     "detail": "status 200",
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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

from paraglider.config.types import IPAddress
from paraglider.core.pool import Event
from paraglider.health.codes import Code
from paraglider.health.fields import flag, name, number, text
from paraglider.health.targets import Key, Scope, Target

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets that are new or changed, and the keys of those that are gone.

    With ``whole`` there are no others. ``scope`` is None without failover.
    """

    do: ClassVar[str] = "targets"
    targets: tuple[Target, ...]
    scope: Scope | None = None
    gone: tuple[Key, ...] = ()
    whole: bool = True

    def plain(self) -> Plain:
        """For ``order``."""
        scope = None if self.scope is None else self.scope.plain()
        targets = [target.plain() for target in self.targets]
        gone = [list(key) for key in self.gone]
        return {
            "do": self.do,
            "targets": targets,
            "failover": scope,
            "gone": gone,
            "whole": self.whole,
        }


@dataclass(frozen=True, slots=True)
class Hints:
    """Backends to which flows went unanswered."""

    do: ClassVar[str] = "hints"
    backends: tuple[Key, ...]

    def plain(self) -> Plain:
        """For ``order``."""
        return {"do": self.do, "backends": [list(key) for key in self.backends]}


def order(plain: Mapping[str, Any]) -> Targets | Hints:
    """What the hub said; raises KeyError, TypeError or ValueError for what is no order."""
    if plain["do"] == Targets.do:
        scope = None if plain["failover"] is None else Scope.of(plain["failover"])
        targets = tuple(Target.of(target) for target in plain["targets"])
        return Targets(targets, scope, _keys(plain["gone"]), bool(plain["whole"]))
    if plain["do"] == Hints.do:
        return Hints(_keys(plain["backends"]))
    raise ValueError(f"{plain['do']} is no order to the checker")


def _keys(plain: Iterable[Sequence[Any]]) -> tuple[Key, ...]:
    return tuple((str(service), str(backend)) for service, backend in plain)


@dataclass(frozen=True, slots=True)
class Report:
    """How one look at a backend went: ``detail`` is one line, ``duration`` seconds.

    ``passed`` is None where the look could not take place, for a cause that is this host's.
    """

    do: ClassVar[str] = "report"
    service: str
    backend: str
    passed: bool | None
    code: Code
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
#: news in one message: what the controller handles at a time
MOST_NEWS: Final = 256
#: seconds that a look may have taken at most, and that a clock may show
_LONGEST: Final = 86400.0
_LATEST: Final = 1e10


def batch(news: Iterable[News]) -> Plain:
    """The message with ``news``, for ``told``."""
    return {"do": "news", "news": [each.plain() for each in news]}


def told(plain: Mapping[str, Any]) -> list[News]:
    """What the checker said; raises KeyError, TypeError or ValueError for what is no news."""
    if plain["do"] != "news":
        raise ValueError("`do` is no news of the checker")
    if not isinstance(plain["news"], list) or len(plain["news"]) > MOST_NEWS:
        raise ValueError("`news` is no list, or too long")
    return [_news(each) for each in plain["news"]]


def _news(plain: Mapping[str, Any]) -> News:
    if not isinstance(plain, Mapping):
        raise ValueError("news are no object")
    do = plain["do"]
    at, detail = number(plain, "at", 0.0, _LATEST), text(plain, "detail")
    if do in ("joined", "left"):
        return Found(do == "joined", ipaddress.ip_address(name(plain, "address")), detail, at)
    service, backend = name(plain, "service"), name(plain, "backend")
    if do == Report.do:
        passed = None if plain["passed"] is None else flag(plain, "passed")
        code, took = Code(name(plain, "code")), number(plain, "duration", 0.0, _LONGEST)
        return Report(service, backend, passed, code, detail, took, at)
    if do == Verdict.do:
        event, held = Event(name(plain, "event")), number(plain, "held_until", 0.0, _LATEST)
        if event not in EVENTS:
            raise ValueError("`event` is not a check's")
        return Verdict(service, backend, event, detail, at, held)
    raise ValueError("`do` is no news of the checker")

"""The routes of the VIPs: what holds for each, from what the daemon tells, or that it is gone.

    announced       routers are to send its packets here
    not preferred   only if they have no other route: it is ill, or the balancer is drained
    withdrawn       not at all

The rules:

* What gets worse is said at once. A VIP is announced when it has been well for ``rise`` seconds.
* A VIP that falls FALLS times within ``health.flapping.PERIOD`` is held: it stays as an ill one is.
  If it falls again soon after, it is held twice as long. Being drained is no fall.
* A daemon that is gone is a fall of every VIP, counted apart: after OUTAGES of them all are held.
  With a number of seconds as ``gone`` routes are kept that long, and a daemon that is back by then
  was never gone.
* What was not said is not known: at the start each VIP is said once, and the routes that an
  announcer before this one has left stay until then.

Lives here: ``VipRoutes``, ``Policy``, ``VipRoute``, ``VipChange``.
Rules: pure; time is an argument (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, Final, NamedTuple, Self

from paraglider.config.announce import AnnounceConfig
from paraglider.config.types import IPAddress
from paraglider.health.flapping import FlapHold

#: falls of a VIP within a minute that hold it: three changes of its route are the most in a minute
FALLS: Final = 2
#: the same of the daemon, as of its processes (``daemon.processes.child.DEATHS``)
OUTAGES: Final = 3
#: the status of a drained balancer (``daemon.conditions.health``)
_DRAINING: Final = "draining"


class VipRoute(StrEnum):
    """What holds for a VIP, as the log has it."""

    ANNOUNCED = "announced"
    NOT_PREFERRED = "not-preferred"
    WITHDRAWN = "withdrawn"


_WORDS: Final = {"prefer_not": VipRoute.NOT_PREFERRED, "withdraw": VipRoute.WITHDRAWN}


@dataclass(frozen=True, slots=True)
class Policy:
    """The route of an ill VIP; that of all while the daemon is gone, after ``keep`` seconds; and
    the seconds that a VIP must be well.
    """

    ill: VipRoute
    gone: VipRoute
    keep: float
    rise: float

    @classmethod
    def of(cls, config: AnnounceConfig) -> Self:
        """As the file has it."""
        keeps = isinstance(config.gone, float)
        gone = VipRoute.WITHDRAWN if keeps else _WORDS[str(config.gone)]
        keep = float(config.gone) if keeps else 0.0
        return cls(_WORDS[config.ill], gone, keep, config.rise)


class VipStatus(NamedTuple):
    """What the daemon tells of a VIP."""

    announce: bool
    status: str
    why: str

    @classmethod
    def of(cls, plain: Any) -> Self:
        """From JSON; raises ValueError."""
        if not isinstance(plain, dict) or not isinstance(plain.get("announce"), bool):
            raise ValueError("no state of a VIP")
        return cls(plain["announce"], str(plain.get("status", "")), str(plain.get("why", "")))


class VipChange(NamedTuple):
    """A VIP's route is another from now on."""

    vip: IPAddress
    route: VipRoute
    why: str


@dataclass(slots=True)
class _Vip:
    """A VIP: its route, None before it was said, and since when; its status, since when it is well
    without a break; until when it is held.
    """

    route: VipRoute | None = None
    since: float = 0.0
    status: VipStatus | None = None
    well_since: float = inf
    held_until: float = -inf
    flapping: FlapHold = field(default_factory=lambda: FlapHold(FALLS))


class VipRoutes:
    """The routes of ``vips`` by ``policy``, from ``now`` on; nothing is said before the daemon is
    heard, or is gone.
    """

    def __init__(self, policy: Policy, vips: Iterable[IPAddress], now: float) -> None:
        self._policy = policy
        self._vips = {vip: _Vip() for vip in vips}
        self._leaving: dict[IPAddress, _Vip] = {}
        self._states: dict[IPAddress, VipStatus] | None = None
        self._gone_since: float | None = None
        self._why_gone = ""
        self._fell = True  # whether the present absence is counted
        self._back_since = now
        self._outages = FlapHold(OUTAGES)
        self._held_until = -inf
        self._ended = False
        self._due = now

    def configure(self, policy: Policy, vips: Iterable[IPAddress], now: float) -> None:
        """The file has changed. VIPs that left it are withdrawn."""
        before, self._policy, self._due = self._leaving | self._vips, policy, now
        self._vips = {vip: before.pop(vip) if vip in before else _Vip() for vip in vips}
        self._leaving = before
        self._apply(now)

    def heard(self, states: Mapping[IPAddress, VipStatus], now: float, *, whole: bool) -> None:
        """The daemon has told ``states``; ``whole``: of all VIPs that it announces."""
        if self._gone_since is not None:
            self._gone_since, self._back_since, self._due = None, now, now
        if whole:
            self._states = dict(states)
        elif states and self._states is not None:
            self._states |= states
        if states or whole:
            self._apply(now)
            self._due = now

    def _apply(self, now: float) -> None:
        """Give each VIP its status."""
        for vip, one in self._vips.items():
            one.status = None if self._states is None else self._states.get(vip)
            well = one.status is not None and one.status.announce and self._gone_since is None
            one.well_since = min(one.well_since, now) if well else inf

    def gone(self, why: str, now: float) -> None:
        """The daemon is gone, or hangs."""
        if self._gone_since is None:
            self._gone_since, self._fell, self._due = now, False, now
            for one in self._vips.values():
                one.well_since = inf
        self._why_gone = why

    def end(self, now: float) -> None:
        """This process is about to end."""
        self._ended, self._due = True, now

    def wait(self, now: float) -> float:
        """Seconds until ``turn`` has something to say, if nothing else happens."""
        return max(0.0, self._due - now)

    def turn(self, now: float) -> list[VipChange]:
        """What has changed, to be said now."""
        if now < self._due:
            return []
        self._due = inf
        if self._gone_since is not None and not self._fell:
            self._count_outage(self._gone_since + self._policy.keep, now)
        changes = [
            VipChange(vip, VipRoute.WITHDRAWN, "the file has it no more")
            for vip, one in self._leaving.items()
            if one.route not in (None, VipRoute.WITHDRAWN)
        ]
        self._leaving = {}
        for vip, one in self._vips.items():
            route, why = self._wanted(one, now)
            if route is None or route is one.route:
                continue
            if one.route is VipRoute.ANNOUNCED and self._is_fall(one):
                one.held_until = now + one.flapping.fell(now, one.since)
            one.route, one.since = route, now
            changes.append(VipChange(vip, route, why))
        return changes

    def _wanted(self, one: _Vip, now: float) -> tuple[VipRoute | None, str]:
        """The route of ``one`` at ``now``, None to leave it as it is, and why; notes when it may
        be another.
        """
        policy = self._policy
        if self._ended:
            return VipRoute.WITHDRAWN, "the announcer ends"
        if self._gone_since is not None:
            if now < (until := self._gone_since + policy.keep):
                self._due = min(self._due, until)
                return None, ""
            lasting = policy.gone is VipRoute.NOT_PREFERRED and one.route is not None
            worse = lasting and one.route is not VipRoute.WITHDRAWN
            return VipRoute.NOT_PREFERRED if worse else VipRoute.WITHDRAWN, self._why_gone
        if self._states is None:  # nothing was heard yet
            return None, ""
        if one.status is None:
            return VipRoute.WITHDRAWN, "the daemon does not announce it"
        if not one.status.announce:
            return policy.ill, one.status.why or one.status.status
        if one.route is VipRoute.ANNOUNCED:
            return None, ""
        held = max(one.held_until, self._held_until) if policy.rise else -inf
        if now < held:
            self._due = min(self._due, held)
            return policy.ill, f"it flaps, and is held for {held - now:.0f} s"
        if now < (risen := one.well_since + policy.rise):
            self._due = min(self._due, risen)
            return None, ""
        return VipRoute.ANNOUNCED, one.status.why or one.status.status

    def _is_fall(self, one: _Vip) -> bool:
        """Whether ``one``, which was announced, falls by itself."""
        if self._ended or self._gone_since is not None or one.status is None:
            return False
        return one.status.status != _DRAINING

    def _count_outage(self, at: float, now: float) -> None:
        """Count the present absence of the daemon, once routes follow from it."""
        if now < at:
            return
        self._fell = True
        if any(one.route is VipRoute.ANNOUNCED for one in self._vips.values()):
            self._held_until = now + self._outages.fell(now, self._back_since)

"""Detects SYNs to backends whose answers do not pass this host, because of a filter or a route.

The workers count the flows that they give to each backend and the SYNs that are repeated; they, or
the kernel where conntrack has the flows, count the packets that backends answer with. If SYNs are
repeated and no packet comes from a backend that is up by its checks, either a filter between the
two drops packets (a forward chain of another firewall, here or there), or the answers do not pass
through this host. ``host.foreign`` names chains that certainly drop; this finds the rest.

Lives here: ``UnansweredOpenings``.
Rules: pure; time is an argument. Services whose answers do not pass here by design
(``Method.answers_pass``) and UDP are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from paraglider.config.model import Config, Service
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.stats.traffic import TrafficCounters
from paraglider.daemon.store.backends import BackendTable, Key

#: repeated SYNs without an answer that make a condition
LEAST: Final = 3
#: seconds without an answer that make a condition
SILENCE: Final = 3.0
#: seconds without another such SYN after which the condition ends
LATELY: Final = 60.0
#: seconds between two comparisons, and for each backend more: it takes some 10 µs
INTERVAL: Final = 1.0
A_BACKEND: Final = 0.01
#: backends named in one line
_NAMED: Final = 3


@dataclass(slots=True)
class _Seen:
    """The counters of a backend at its last answer, and their time (``at``); ``again`` and
    ``again_at`` are those of SYNs repeated since.
    """

    answers: int
    openings: int
    repeated: int
    at: float
    again: int = 0
    again_at: float = 0.0


class UnansweredOpenings:
    """Reports to ``conditions``."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._seen: dict[Key, _Seen] = {}
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next comparison is due."""
        return max(0.0, self._next - now)

    def update(
        self, config: Config, pools: BackendTable, traffic: TrafficCounters, now: float, read: float
    ) -> None:
        """Compare the counters of the workers at ``now``, and those of the kernel, read at
        ``read``.
        """
        found: dict[str, Condition] = {}
        seen: dict[Key, _Seen] = {}
        for service in config.services:
            if not _passes_here(service):
                continue
            silent: dict[str, int] = {}
            known = read if service.method.conntracked else now
            for member in pools.of(service.name):
                key = service.name, member.backend
                counted = traffic.of(*key)
                one = seen[key] = self._count(key, counted, now, known)
                openings = (counted["conns"] or 0) - one.openings
                if member.takes_flows and _is_silent(one, now, known):
                    silent[member.backend] = max(openings, one.again)
            if silent:
                found[f"service {service.name}"] = _condition(service, silent)
        self._seen = seen
        self._next = now + INTERVAL + A_BACKEND * len(seen)
        self._conditions.report("answers", found)

    def _count(
        self, key: Key, counted: Mapping[str, int | None], now: float, known: float
    ) -> _Seen:
        answers, repeated = counted["packets_out"] or 0, counted["unanswered"] or 0
        one = self._seen.get(key)
        if one is None or answers != one.answers:
            return _Seen(answers, counted["conns"] or 0, repeated, known)
        if repeated - one.repeated > one.again:
            one.again, one.again_at = repeated - one.repeated, now
        return one


def _passes_here(service: Service) -> bool:
    tcp = service.protocol != "udp"
    return tcp and service.method.answers_pass(service)


def _is_silent(one: _Seen, now: float, known: float) -> bool:
    return one.again >= LEAST and known - one.at >= SILENCE and now - one.again_at < LATELY


def _condition(service: Service, silent: dict[str, int]) -> Condition:
    names = list(silent)
    named = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        named += f" and {len(names) - _NAMED} more"
    asked = "is a filter dropping forwarded packets, or is this host not the backend's gateway?"
    if service.check is None:
        asked = f"is the backend up? If so, {asked}"
    text = f"{sum(silent.values())} openings went to {named}, no answer passed here; {asked}"
    return Condition("degraded", text)

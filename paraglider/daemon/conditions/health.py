"""The health that is told: of all, of this balancer alone, or of one VIP, and whether to announce.

    of_all    every condition
    of_node   without those about backends: processes, the host's rules and tables, the workers
    of_vip    the same, and those about the services of one VIP

A program that announces the VIPs (BGP, VRRP) announces while it is told ``announce``: unless the
health is unhealthy, or the operator has drained the balancer. Too much load makes neither the
balancer nor a VIP unhealthy: clients that were sent away would fill the other balancers.

Lives here: ``Health`` and these functions; ``NodeHealth``, which tells the same of many VIPs in few
words (``VipHealth``) without reading the conditions for each.
Rules: pure; nothing about one VIP depends on the backends of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from paraglider.config.types import IPAddress
from paraglider.daemon.conditions.assessor import UNSERVED, serving
from paraglider.daemon.conditions.table import (
    DEGRADED,
    HEALTHY,
    UNHEALTHY,
    Condition,
    Conditions,
    Standing,
    worst,
)
from paraglider.daemon.store.store import Store
from paraglider.errors import OperatorError

#: the word for a drained balancer that is not unhealthy
DRAINING: Final = "draining"
#: which services of a VIP need a ready backend
When = Literal["any", "all"]

_SERVICES: Final = "services"
#: sources of conditions about backends
_BACKENDS: Final = (_SERVICES, "pools", "answers", "checks")
#: the source of conditions about load
_LOAD: Final = "workers"


@dataclass(frozen=True, slots=True)
class Health:
    """The conditions ``standing``, the worst first, and whether the balancer is drained."""

    standing: tuple[Standing, ...]
    draining: bool

    @property
    def status(self) -> str:
        """UNHEALTHY, DRAINING, or the worst severity, or HEALTHY."""
        found = worst(self.standing)
        return DRAINING if self.draining and found != UNHEALTHY else found

    @property
    def announce(self) -> bool:
        """Whether routers are to send packets here."""
        return self.status not in (UNHEALTHY, DRAINING)


@dataclass(frozen=True, slots=True)
class VipHealth:
    """The health of a VIP in few words: whether to announce it, its status, and the first cause."""

    announce: bool
    status: str
    why: str


def of_all(conditions: Conditions, store: Store) -> Health:
    """The health of everything here."""
    return Health(tuple(conditions), store.node.draining)


def of_node(conditions: Conditions, store: Store) -> Health:
    """The health of this balancer, whatever its backends do."""
    found = (each for each in _of_announcing(conditions) if each.source not in _BACKENDS)
    return Health(_ordered(found), store.node.draining)


def of_vip(conditions: Conditions, store: Store, vip: IPAddress, when: When, now: float) -> Health:
    """The health of ``vip`` at ``now`` (monotonic seconds): unhealthy if this balancer is, or if
    not ``when`` (any or all) of its services have a backend that takes new flows.

    Raises ``OperatorError`` if no service has it.
    """
    served = list(serving(store.config.services, store.pools))
    ours = {f"service {each.name}": has for each, has in served if each.vip.ip == vip}
    if not ours:
        there = ", ".join(dict.fromkeys(str(each.vip.ip) for each, _ in served)) or "none"
        raise OperatorError(f"no service has the VIP {vip}", f"there are: {there}")
    others = {f"service {each.name}" for each in store.config.services} - ours.keys()
    known = {each.object: each for each in conditions if each.source == _SERVICES}
    ill = not (any if when == "any" else all)(ours.values())
    condition = UNSERVED if ill else Condition(DEGRADED, UNSERVED.text)

    def found() -> Iterator[Standing]:
        for each in _of_announcing(conditions):
            if each.source == _SERVICES or each.object in others:
                continue
            if each.source not in _BACKENDS or each.object in ours:
                yield each
        for name, has in ours.items():
            if not has:
                standing = known.get(name, Standing(_SERVICES, name, condition, now))
                yield replace(standing, condition=condition)

    return Health(_ordered(found()), store.node.draining)


class NodeHealth:
    """The conditions as they matter to VIPs: of the balancer, and by service.

    ``services`` are the names of all services, each ``service NAME``.
    """

    def __init__(self, conditions: Conditions, services: frozenset[str], *, draining: bool) -> None:
        self._draining = draining
        self._common: Standing | None = None
        self._own: dict[str, Standing] = {}
        for each in _of_announcing(conditions):
            if each.source == _SERVICES:
                continue
            if each.object in services:
                self._own[each.object] = _worse(self._own.get(each.object), each)
            elif each.source not in _BACKENDS:
                self._common = _worse(self._common, each)

    def of_vip(self, served: Mapping[str, bool], when: When) -> VipHealth:
        """As the function ``of_vip``: ``served`` is whether each of its services (``service NAME``)
        has a backend that takes new flows.
        """
        found = self._common
        for name in served:
            if (own := self._own.get(name)) is not None:
                found = _worse(found, own)
        lacking = [name for name, has in served.items() if not has]
        if lacking and (found is None or found.condition.severity != UNHEALTHY):
            ill = len(lacking) == len(served) if when == "any" else True
            if ill or found is None:
                severity = UNHEALTHY if ill else DEGRADED
                found = Standing("", lacking[0], Condition(severity, UNSERVED.text), 0.0)
        status = HEALTHY if found is None else found.condition.severity
        if self._draining and status != UNHEALTHY:
            return VipHealth(False, DRAINING, "this balancer is drained")
        why = "" if found is None else found.line.partition(";")[0]
        return VipHealth(status != UNHEALTHY, status, why)


def _worse(one: Standing | None, other: Standing) -> Standing:
    """The worse of two; the first if they are alike."""
    if one is None or (one.condition.severity, other.condition.severity) == (DEGRADED, UNHEALTHY):
        return other
    return one


def _of_announcing(conditions: Conditions) -> Iterator[Standing]:
    """The conditions with the severity that they have for who announces."""
    for each in conditions:
        if each.source == _LOAD:
            yield replace(each, condition=Condition(DEGRADED, each.condition.text))
        else:
            yield each


def _ordered(standing: Iterable[Standing]) -> tuple[Standing, ...]:
    return tuple(sorted(standing, key=lambda each: each.condition.severity != UNHEALTHY))

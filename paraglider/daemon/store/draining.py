"""Removed backends that still have flows.

Established flows keep their backend, even a removed one: its replies must still be recognised, and
its mark must stay valid. So it drains: it stays in the configuration of workers and rules, with
weight 0, until its last flow has ended. A removed service drains with all its backends, and refuses
new flows.

Lives here: ``Draining``; ``draining_of``, ``with_draining``, ``after``, ``without``.
Rules: pure. A backend that would contradict the new configuration (its port belongs to another
service now) does not drain, and its flows end. Connections of a proxy are two sockets and need
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from paraglider.config import check
from paraglider.config.diff import predecessors
from paraglider.config.model import BackendConfig, Config, Service
from paraglider.daemon.store.backends import Key


class Draining(NamedTuple):
    """Removed backends of a service, with the service's former configuration.

    ``joins`` is the service that they belong to, None if the whole service was removed.
    """

    joins: str | None
    service: Service


def draining_of(before: Config, wanted: Config) -> tuple[Draining, ...]:
    """The backends of ``before`` that ``wanted`` lacks, except those that would contradict it."""
    return _fitting(wanted, list(_lacking(before, wanted)))


def with_draining(wanted: Config, draining: Sequence[Draining]) -> Config:
    """``wanted`` plus the draining backends with weight 0."""
    if not draining:
        return wanted
    keys = keys_of(draining)

    def weight(service: Service, backend: BackendConfig) -> int:
        return 0 if (service.name, backend.name) in keys else backend.weight

    return _weighed(_with(wanted, draining), weight)


def keys_of(draining: Iterable[Draining]) -> frozenset[Key]:
    """The keys of the draining backends."""
    return frozenset(
        (each.joins or each.service.name, backend.name)
        for each in draining
        for backend in each.service.backends
    )


def after(draining: Iterable[Draining], gone: frozenset[Key]) -> tuple[Draining, ...]:
    """``draining`` without the backends ``gone``."""
    left = []
    for joins, service in draining:
        name = joins or service.name
        backends = tuple(b for b in service.backends if (name, b.name) not in gone)
        if backends:
            left.append(Draining(joins, service.with_backends(backends)))
    return tuple(left)


def without(config: Config, gone: frozenset[Key]) -> Config:
    """``config`` without the backends ``gone``, and without services that have no backend left."""
    services = []
    for service in config.services:
        left = tuple(b for b in service.backends if (service.name, b.name) not in gone)
        if left == service.backends:
            services.append(service)
        elif left:
            services.append(service.with_backends(left))
    return config.model_copy(update={"services": tuple(services)})


def _lacking(before: Config, wanted: Config) -> Iterator[Draining]:
    """The backends of ``before`` that ``wanted`` lacks."""
    names = {was: now for now, was in predecessors(before, wanted).items()}
    here = {service.name: service for service in wanted.services}
    for service in before.services:
        if not service.method.queued or not service.backends:
            continue
        if service.name not in names:
            yield Draining(None, service)
            continue
        now = here[names[service.name]]
        if now is service:
            continue
        if (now.forward, now.family) != (service.forward, service.family) or not now.backends:
            continue
        known = {backend.name for backend in now.backends}
        if missing := tuple(b for b in service.backends if b.name not in known):
            yield Draining(now.name, service.with_backends(missing))


def _fitting(
    wanted: Config, lacking: Sequence[Draining], found: tuple[Draining, ...] = ()
) -> tuple[Draining, ...]:
    """``found``, plus those of ``lacking`` that fit ``wanted`` together with them.

    Checks all at once; if there is a contradiction, each half by itself (bisection), so that few
    contradictions among many backends cost little.
    """
    if not lacking:
        return found
    every = (*found, *lacking)
    if not _contradicts(_with(wanted, every)):
        return every
    if len(lacking) == 1:
        return found
    half = len(lacking) // 2
    return _fitting(wanted, lacking[half:], _fitting(wanted, lacking[:half], found))


def _with(wanted: Config, draining: Sequence[Draining]) -> Config:
    more: dict[str, tuple[BackendConfig, ...]] = {}
    for each in draining:
        if each.joins is not None:
            more[each.joins] = (*more.get(each.joins, ()), *each.service.backends)
    services = [
        service.with_backends((*service.backends, *more[service.name]))
        if service.name in more
        else service
        for service in wanted.services
    ]
    services += (each.service for each in draining if each.joins is None)
    return wanted.model_copy(update={"services": tuple(services)})


def _contradicts(config: Config) -> bool:
    """Whether ``config`` is invalid, weights aside, which will be 0, and what is announced, which
    a draining service is not.
    """
    weighed = _weighed(config, lambda _, backend: backend.weight or 1)
    return bool(check.check(weighed.model_copy(update={"announce": None})))


def _weighed(config: Config, weight: Callable[[Service, BackendConfig], int]) -> Config:
    services = tuple(
        service.with_backends(
            tuple(b.model_copy(update={"weight": weight(service, b)}) for b in service.backends)
        )
        if service.backends
        else service
        for service in config.services
    )
    return config.model_copy(update={"services": services})

"""Backends that the file no longer has, for as long as they have flows.

Established flows keep their backend, also one that was removed: its replies must still be known,
and its mark must still mean it. So it drains: it stays in the configuration of workers and rules,
with weight 0, until its last flow has ended. A service that was removed drains with all its
backends, and refuses new flows.

Lives here: ``Draining``, the fact, and what becomes of it: ``draining_of``, ``with_draining``,
``after``; ``without``.
Rules: pure. What would contradict the new configuration (its port is another service's by now) is
not kept, and its flows end. Connections of a proxy are two sockets and need nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from paraglider.config import check
from paraglider.config.diff import predecessors
from paraglider.config.model import BackendConfig, Config, Service
from paraglider.daemon.store.backends import Key


class Draining(NamedTuple):
    """Backends that were removed, as their service was configured, until their last flow ended.

    ``joins`` is the service that they belong to, None where all of it was removed.
    """

    joins: str | None
    service: Service


def draining_of(before: Config, wanted: Config) -> tuple[Draining, ...]:
    """What ``wanted`` lacks of ``before``, but for what would contradict it."""
    return _fitting(wanted, list(_lacking(before, wanted)))


def with_draining(wanted: Config, draining: Sequence[Draining]) -> Config:
    """``wanted`` and what drains besides, which has weight 0."""
    if not draining:
        return wanted
    keys = keys_of(draining)

    def weight(service: Service, backend: BackendConfig) -> int:
        return 0 if (service.name, backend.name) in keys else backend.weight

    return _weighed(_with(wanted, draining), weight)


def keys_of(draining: Iterable[Draining]) -> frozenset[Key]:
    """The backends that drain."""
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
    """``config`` without the backends ``gone``, and without the services that have none left."""
    services = []
    for service in config.services:
        left = tuple(b for b in service.backends if (service.name, b.name) not in gone)
        if left == service.backends:
            services.append(service)
        elif left:
            services.append(service.with_backends(left))
    return config.model_copy(update={"services": tuple(services)})


def _lacking(before: Config, wanted: Config) -> Iterator[Draining]:
    """What ``wanted`` lacks of ``before``."""
    names = {was: now for now, was in predecessors(before, wanted).items()}
    here = {service.name: service for service in wanted.services}
    for service in before.services:
        if not service.method.queued or not service.backends:
            continue
        if service.name not in names:
            yield Draining(None, service)
            continue
        now = here[names[service.name]]
        if (now.forward, now.family) != (service.forward, service.family) or not now.backends:
            continue
        known = {backend.name for backend in now.backends}
        if missing := tuple(b for b in service.backends if b.name not in known):
            yield Draining(now.name, service.with_backends(missing))


def _fitting(
    wanted: Config, lacking: Sequence[Draining], found: tuple[Draining, ...] = ()
) -> tuple[Draining, ...]:
    """``found`` and those of ``lacking`` that may join ``wanted`` with them.

    All are judged at once, and where that finds a contradiction each half by itself, so that a few
    of very many cost little.
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
    """Whether ``config`` contradicts itself; weights aside, which are to be none."""
    return bool(check.check(_weighed(config, lambda _, backend: backend.weight or 1)))


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

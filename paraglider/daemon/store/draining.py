"""Backends that the file no longer has, for as long as they have flows.

Established flows keep their backend, also one that was removed: its replies must still be known,
its mark must still mean it. So it stays in the configuration that workers and rules go by, with
weight 0 and drained, until its last flow has ended; then it is gone for good. A service that was
removed stays so with all its backends, and refuses new flows.

Lives here: ``merge``, ``without``, and ``Draining``, which are left and when to look after them.
Rules: pure; time is an argument. What would contradict the new configuration (the port is another
service's by now) is not kept, and its flows end. Connections of a proxy need nothing: they are two
sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from paraglider.config import check
from paraglider.config.diff import predecessors
from paraglider.config.model import Backend, Config, Service
from paraglider.daemon.store.backends import Key


class _Lack(NamedTuple):
    """Backends that the service ``of`` that name lacks; None for a whole service."""

    of: str | None
    service: Service


def merge(before: Config, wanted: Config) -> tuple[Config, frozenset[Key]]:
    """``wanted`` with what ``before`` has besides and may stay, and which backends these are."""
    merged = _fitted(wanted, list(_lacking(before, wanted)))
    leaving = frozenset(_keys(merged) - _keys(wanted))

    def weight(service: Service, backend: Backend) -> int:
        return 0 if (service.name, backend.name) in leaving else backend.weight

    return (_weighed(merged, weight) if leaving else merged), leaving


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


def _lacking(before: Config, wanted: Config) -> Iterator[_Lack]:
    """What ``wanted`` lacks of ``before``."""
    names = {was: now for now, was in predecessors(before, wanted).items()}
    here = {service.name: service for service in wanted.services}
    for service in before.services:
        if service.forward == "proxy" or not service.backends:
            continue
        if service.name not in names:
            yield _Lack(None, service)
            continue
        now = here[names[service.name]]
        if (now.forward, now.family) != (service.forward, service.family) or not now.backends:
            continue
        known = {backend.name for backend in now.backends}
        if missing := tuple(b for b in service.backends if b.name not in known):
            yield _Lack(now.name, service.with_backends(missing))


def _fitted(wanted: Config, lacking: Sequence[_Lack]) -> Config:
    """``wanted`` with what is ``lacking``, but for what would contradict it.

    All is judged at once, and where that finds a contradiction each half by itself, so that a few
    of very many cost little.
    """
    if not lacking:
        return wanted
    config = _with(wanted, lacking)
    if not _contradicts(config):
        return config
    if len(lacking) == 1:
        return wanted
    half = len(lacking) // 2
    return _fitted(_fitted(wanted, lacking[:half]), lacking[half:])


def _with(wanted: Config, lacking: Sequence[_Lack]) -> Config:
    more = {lack.of: lack.service.backends for lack in lacking if lack.of is not None}
    services = [
        service.with_backends((*service.backends, *more[service.name]))
        if service.name in more
        else service
        for service in wanted.services
    ]
    services += (lack.service for lack in lacking if lack.of is None)
    return wanted.model_copy(update={"services": tuple(services)})


def _contradicts(config: Config) -> bool:
    """Whether ``config`` contradicts itself; weights aside, which are to be none."""
    return bool(check.check(_weighed(config, lambda _, backend: backend.weight or 1)))


def _weighed(config: Config, weight: Callable[[Service, Backend], int]) -> Config:
    services = tuple(
        service.with_backends(
            tuple(b.model_copy(update={"weight": weight(service, b)}) for b in service.backends)
        )
        if service.backends
        else service
        for service in config.services
    )
    return config.model_copy(update={"services": services})


def _keys(config: Config) -> set[Key]:
    return {(service.name, b.name) for service in config.services for b in service.backends}

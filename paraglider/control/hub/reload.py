"""From the configuration at work to another: what is taken over in place, and what takes a restart.

Lives here: ``compare`` and ``Change``, ``Able``.
Rules: pure. What takes a restart stays as it is, and is told of; the rest is taken over whole.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from paraglider.config.diff import differences, in_place, restarts
from paraglider.config.model import Config, Service
from paraglider.errors import OperatorError
from paraglider.rules.steering import steered_by_client


@dataclass(frozen=True, slots=True)
class Change:
    """The configuration to go on with, what changes in words, and what waits for a restart."""

    config: Config
    words: tuple[str, ...]
    restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Able:
    """What there is since the start: processes of these ``roles``, and the ``strategies`` that
    were loaded.
    """

    roles: Container[str]
    strategies: Container[str]


def compare(now: Config, wanted: Config, able: Able) -> Change:
    """What becomes of ``wanted``, while ``now`` is at work.

    Raises ``OperatorError`` where nothing of it can be taken over without ending flows.
    """
    for family in (4, 6):
        _same_steering(now, wanted, family)
    late = restarts(now, wanted)
    services = []
    for service, why in _fitting(now, wanted, able):
        if why:
            late.append(f"service {why}")
        if service is not None:
            services.append(service)
    if not services:
        raise OperatorError("no service is left that works without a restart", "restart")
    config = in_place(now, wanted).model_copy(update={"services": tuple(services)})
    return Change(config, tuple(differences(now, config)), tuple(late))


def _same_steering(now: Config, wanted: Config, family: int) -> None:
    """Raises ``OperatorError`` where flows would reach other workers than those that know them."""
    before, after = (
        config.without_forwards("proxy").for_families(frozenset({family})).services
        for config in (now, wanted)
    )
    if before and after and steered_by_client(before) != steered_by_client(after):
        raise OperatorError(
            f"`affinity` changes how all IPv{family} packets are steered to the workers",
            "run paraglider.config and restart, which loses no flow",
        )


def _fitting(now: Config, wanted: Config, able: Able) -> Iterator[tuple[Service | None, str]]:
    """Each service as it can be taken over, None where it cannot, and why not as it is wanted."""
    here = {service.name: service for service in now.services}
    for service in wanted.services:
        known = here.get(service.name)
        name = service.name
        if service.strategy not in able.strategies:
            yield known, f"{name} takes a restart: policies are loaded at the start"
        elif service.forward == "proxy" and (
            known is None or _listening(known) != _listening(service)
        ):
            yield known, f"{name} takes a restart to listen anew"
        elif service.forward != "proxy" and "worker" not in able.roles:
            yield known, f"{name} takes a restart: no worker reads a queue"
        elif service.source is not None and "scout" not in able.roles:
            yield known, f"{name} takes a restart: nobody looks where its backends are listed"
        elif service.counted and "tracker" not in able.roles:
            yield known, f"{name} takes a restart: nobody counts the kernel's flows"
        else:
            yield service, ""


def _listening(service: Service) -> tuple[object, ...]:
    """Where a proxy listens for ``service``; nothing for another forward."""
    return (service.vip.ip, service.ports) if service.forward == "proxy" else ()

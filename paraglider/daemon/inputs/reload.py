"""From the applied configuration to another: what changes in place, and what needs a restart.

Lives here: ``compare``, ``ReloadOutcome``, ``Capabilities``, ``FlowLoss``.
Rules: pure. What needs a restart stays as it is, and is reported; so does a service whose live
flows would end, unless ``force`` is given. The rest is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

from paraglider.config.diff import differences, in_place, restarts
from paraglider.config.model import Config, Service
from paraglider.errors import OperatorError
from paraglider.netfilter.rules.steering import steered_by_client


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """The configuration to go on with, what changes in words, and what waits for a restart."""

    config: Config
    words: tuple[str, ...]
    restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlowLoss:
    """How many live flows a service has, by its name, and whether they may end: with ``force``.

    A reload that has to wait for the host asks again with the same numbers.
    """

    flows: Callable[[str], int] = lambda _: 0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What there is since the start: processes of these ``roles``, and the ``strategies`` that
    were loaded; and which flows may end.
    """

    roles: Container[str]
    strategies: Container[str]
    ending: FlowLoss = FlowLoss()


def compare(now: Config, wanted: Config, able: Capabilities) -> ReloadOutcome:
    """What becomes of ``wanted``, while ``now`` is at work.

    Raises ``OperatorError`` where nothing of it can be taken over without ending flows.
    """
    for family in (4, 6):
        _same_steering(now, wanted, family)
    late = restarts(now, wanted)
    services = []
    over = _over(now, wanted, able)
    for service, why in _fitting(now, wanted, able, {} if able.ending.force else over):
        if why:
            late.append(f"service {why}")
        if service is not None:
            services.append(service)
    if not services:
        raise OperatorError("no service is left that works without a restart", "restart")
    config = in_place(now, wanted).model_copy(update={"services": tuple(services)})
    words = differences(now, config)
    if able.ending.force:
        words += (f"service {name}: {_flows(count)} ended" for name, (_, count) in over.items())
    return ReloadOutcome(config, tuple(words), tuple(late))


def _over(now: Config, wanted: Config, able: Capabilities) -> dict[str, tuple[str, int]]:
    """The services whose live flows the way of forwarding or the VIP of ``wanted`` would end: what
    is other, and how many flows.

    Connections of a proxy are two sockets, which go on.
    """
    here = {service.name: service for service in now.services if service.method.queued}
    found = {}
    for service in wanted.services:
        known = here.get(service.name)
        if known is None:
            continue
        pairs = (known.forward, service.forward), (str(known.vip.ip), str(service.vip.ip))
        other = [
            f"{key} {was} → {will}"
            for key, (was, will) in zip(("forward", "vip"), pairs, strict=True)
            if was != will
        ]
        if other and (count := able.ending.flows(known.name)):
            found[service.name] = (" and ".join(other), count)
    return found


def _flows(count: int) -> str:
    return f"{count} flow{'' if count == 1 else 's'}"


def _same_steering(now: Config, wanted: Config, family: int) -> None:
    """Raises ``OperatorError`` where flows would reach other workers than those that know them."""
    before, after = (
        config.queued.for_families(frozenset({family})).services for config in (now, wanted)
    )
    if before and after and steered_by_client(before) != steered_by_client(after):
        raise OperatorError(
            f"`affinity` changes how all IPv{family} packets are steered to the workers",
            "run paraglider.config and restart, which loses no flow",
        )


def _fitting(
    now: Config, wanted: Config, able: Capabilities, over: Mapping[str, tuple[str, int]]
) -> Iterator[tuple[Service | None, str]]:
    """Each service as it can be taken over, None where it cannot, and why not as it is wanted;
    those that are ``over`` (``_over``) stay as they are.
    """
    here = {service.name: service for service in now.services}
    for service in wanted.services:
        known = here.get(service.name)
        name = service.name
        if service.strategy not in able.strategies:
            yield known, f"{name} takes a restart: policies are loaded at the start"
        elif service.method.listens and (known is None or _listening(known) != _listening(service)):
            yield known, f"{name} takes a restart to listen anew"
        elif service.method.queued and "worker" not in able.roles:
            yield known, f"{name} takes a restart: no worker reads a queue"
        elif service.source is not None and "discovery" not in able.roles:
            yield known, f"{name} takes a restart: nobody looks where its backends are listed"
        elif service.counted and "conntrack counter" not in able.roles:
            yield known, f"{name} takes a restart: nobody counts the kernel's flows"
        elif name in over:
            what, count = over[name]
            ends = f"{what} ends {_flows(count)}"
            yield known, f"{name}: {ends}; `paraglider reload --force` does it all the same"
        else:
            yield service, ""


def _listening(service: Service) -> tuple[object, ...]:
    """Where a proxy listens for ``service``; nothing for another forward."""
    return (service.vip.ip, service.ports) if service.method.listens else ()

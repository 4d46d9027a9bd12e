"""Compares the applied configuration with another: what changes in place, and what needs a restart.

Lives here: ``compare``, ``ReloadOutcome``, ``Capabilities``, ``FlowLoss``.
Rules: pure. Settings that need a restart are not changed, and are reported; so is a service whose
live flows would end, unless ``force`` is given. The rest is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field

from paraglider.config.diff import differences, in_place, restarts
from paraglider.config.model import Config, Service
from paraglider.config.service import Method
from paraglider.errors import OperatorError
from paraglider.netfilter.rules.steering import steered_by_client


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """The configuration to apply, descriptions of the changes, and of those that need a restart."""

    config: Config
    words: tuple[str, ...]
    restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlowLoss:
    """How many live flows a service has, by its name, and whether they may end: with ``force``.

    A reload that waits for the host is retried with the same numbers.
    """

    flows: Callable[[str], int] = lambda _: 0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The limits set at the start: processes of these ``roles``, loaded ``strategies``, BPF unless
    there is a reason against it (``no_bpf``), or against that for a forward method (``lacks``), its
    program for XDP (``xdp``); and which flows may end.
    """

    roles: Container[str]
    strategies: Container[str]
    ending: FlowLoss = FlowLoss()
    no_bpf: str = ""
    xdp: bool = False
    lacks: Mapping[Method, str] = field(default_factory=dict)


def compare(now: Config, wanted: Config, able: Capabilities) -> ReloadOutcome:
    """Compare ``wanted`` with the applied ``now``.

    Raises ``OperatorError`` if no service can be applied without ending flows.
    """
    for family in (4, 6):
        _same_steering(now, wanted, family)
    late = restarts(now, wanted)
    services = []
    over = _over(now, wanted, able)
    here = {service.name: service for service in now.services}
    waiting: set[str] = set()
    fitting = _fitting(now, wanted, able, {} if able.ending.force else over)
    for asked, found in zip(wanted.services, fitting, strict=True):
        service, why = found
        accepts = None if asked.route is None else asked.route.service
        if not why and accepts in waiting:
            service = here.get(asked.name)
            why = f"{asked.name} takes a restart, as {accepts}, which accepts its connections"
        if why:
            waiting.add(asked.name)
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
    """The services whose live flows would end by the forward method or VIP of ``wanted``: what
    differs, and how many flows.

    Connections of a proxy are two sockets, and continue.
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
    """Raises ``OperatorError`` if flows would be steered to other workers than those that have
    them.
    """
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
    """Each service as it can be applied, None if it cannot be, and why it differs from what is
    wanted; services in ``over`` (``_over``) are not changed.
    """
    here = {service.name: service for service in now.services}
    for service in wanted.services:
        known = here.get(service.name)
        name = service.name
        if service.strategy not in able.strategies:
            yield known, f"{name} takes a restart: policies are loaded at the start"
        elif service.method.listens and _listening(known) != _listening(service):
            yield known, f"{name} takes a restart to listen anew"
        elif service.method.queued and "worker" not in able.roles:
            yield known, f"{name} takes a restart: no worker reads a queue"
        elif service.source is not None and "discovery" not in able.roles:
            yield known, f"{name} takes a restart: no process watches its list of backends"
        elif service.counted and "conntrack counter" not in able.roles:
            yield known, f"{name} takes a restart: no process counts the kernel's flows"
        elif service.needs_bpf and able.no_bpf:
            yield known, f"{name} takes a restart: BPF carries no flow ({able.no_bpf})"
        elif service.needs_bpf and service.method in able.lacks:
            yield known, f"{name} takes another kernel: {able.lacks[service.method]}"
        elif service.wants_xdp and not able.xdp:
            yield known, f"{name} takes a restart: no program for XDP was loaded at the start"
        elif name in over:
            what, count = over[name]
            ends = f"{what} ends {_flows(count)}"
            yield known, f"{name}: {ends}; `paraglider reload --force` does it all the same"
        else:
            yield service, ""


def _listening(service: Service | None) -> tuple[object, ...]:
    """The listening addresses of a proxy ``service``; empty for other methods, and for a route,
    whose connections another service accepts.
    """
    if service is None or not service.method.listens or service.route is not None:
        return ()
    return service.vip.ip, service.ports

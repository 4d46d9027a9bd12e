"""Explains the balancer's choice of a backend for a flow, as text.

Lives here: ``explain`` (one flow), ``shares`` (each backend's share of all new flows).
Rules: decides with the same classes as the workers. If a choice depends on turns or live flows,
which only a worker knows, the result is the list of candidates, never a guess. A policy of the
operator is never called.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from paraglider.core.balancer import Balancer
from paraglider.core.flow import ICMP, ICMP6, PROTOCOL_NAMES
from paraglider.core.pool import Backend, State
from paraglider.core.service import ALL_PORTS, VirtualService
from paraglider.core.strategies import NewFlow

_UNSEEDED: Final = (
    "a hash decides, and its seed is not known here: run this as root on the balancer, or give the"
    " service a `seed`"
)


_ADOPTION: Final = (
    "any packet of the flow leads to this backend, also at other balancers with the same file"
)


@dataclass(frozen=True, slots=True)
class DecisionStep:
    """One step of a decision; ``about`` is route, service, state, flow, affinity, decides, strategy
    or adoption.
    """

    about: str
    text: str


@dataclass(frozen=True, slots=True)
class Decider:
    """What picks the backend of a new flow, the kernel or a worker, as ``text``."""

    kernel: bool
    text: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that may get the flow, and its share of all new flows, None if unknown."""

    backend: Backend
    share: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """``backend`` is None if the flow gets none, or if several are possible: these are the
    ``candidates``, in the order of the configuration.
    """

    service: VirtualService | None
    backend: Backend | None
    candidates: tuple[Candidate, ...]
    why: tuple[DecisionStep, ...]


def explain(
    balancer: Balancer,
    flow: NewFlow,
    existing: Backend | None = None,
    *,
    seeded: bool = True,
    decider: Decider | None = None,
    service: VirtualService | None = None,
) -> Explanation:
    """The backend that ``flow`` gets, and why. ``existing`` is the backend of a live flow.

    ``seeded`` is false if the daemon's hashes use a seed that is unknown here. ``decider`` is what
    decides if the flow is new; None: a worker, which needs no step. ``service`` is the flow's, if
    it was found before.
    """
    service = service or balancer.find(flow.protocol, flow.key)
    if service is None:
        return Explanation(None, None, (), (DecisionStep("service", _no_service(balancer, flow)),))
    why = [DecisionStep("service", described(service)), DecisionStep("state", _states(service))]
    if existing is not None:
        why.append(DecisionStep("flow", f"it exists: all its packets go to {existing.name}"))
        return Explanation(service, existing, (), tuple(why))
    if not service.pool.ready:
        return Explanation(service, None, (), tuple(why))
    if service.affinity is not None:
        kept = service.affinity.find(flow.client, flow.now)
        if kept is not None and kept in service.pool.ready:
            why.append(
                DecisionStep("affinity", f"the client has a flow to {kept.name}, and keeps it")
            )
            return Explanation(service, kept, (), tuple(why))
        why.append(DecisionStep("affinity", _unbound(kept)))
    strategy = service.strategy
    known = seeded or not strategy.hashes
    reason = strategy.reason(flow, service.pool.ready) if known else _UNSEEDED
    if decider is not None:
        why.append(DecisionStep("decides", decider.text))
    reason += strategy.turns(by_kernel=decider is not None and decider.kernel)
    why.append(DecisionStep("strategy", reason))
    if strategy.hashes and seeded:
        if service.adoption is not None:
            why.append(DecisionStep("adoption", _ADOPTION))
        backend = balancer.choose(service, flow, lambda _: False)
        return Explanation(service, backend, (), tuple(why))
    share = shares(service)
    candidates = tuple(Candidate(backend, share[backend]) for backend in service.pool.ready)
    only = candidates[0].backend if len(candidates) == 1 else None
    return Explanation(service, only, () if only is not None else candidates, tuple(why))


def shares(service: VirtualService) -> dict[Backend, float | None]:
    """The share of all new flows that each ready backend gets in the long run, None if unknown
    (``Strategy.shares``).
    """
    return service.strategy.shares(service.pool.ready)


def described(service: VirtualService) -> str:
    """A service as text: its name, VIP, protocols and ports."""
    return f"`{service.name}` has {ipaddress.ip_address(service.vip)}, {_claims(service)}"


def _claims(service: VirtualService) -> str:
    names = ", ".join(PROTOCOL_NAMES[protocol] for protocol in service.protocols)
    if service.ports == ALL_PORTS:
        return f"{names}, all ports"
    spans = [str(first) if first == last else f"{first}-{last}" for first, last in service.ports]
    return f"{names}, port{'' if spans[0].isdigit() and not spans[1:] else 's'} {', '.join(spans)}"


def _no_service(balancer: Balancer, flow: NewFlow) -> str:
    """Why no service takes ``flow``."""
    there = [service for service in balancer.services.services if service.vip == flow.vip]
    if not there:
        return f"no service has the VIP {flow.vip_address}: the packet is not balanced"
    protocol = flow.protocol_name
    port = "" if flow.protocol in (ICMP, ICMP6) else f" port {flow.port}"
    claims = "; ".join(described(service) for service in there)
    return f"no service takes {protocol}{port} there: the packet is not balanced ({claims})"


def _states(service: VirtualService) -> str:
    pool = service.pool
    count = len(pool.backends)
    if not pool.ready:
        text = "no backend takes new flows"
    elif len(pool.ready) == count:
        return f"all {count} backends take new flows" if count > 1 else "its one backend is ready"
    else:
        text = f"{len(pool.ready)} of {count} backends take new flows"
    idle = (f"{b.name} {_idle(b)}" for b in pool.backends if b not in pool.ready)
    listed = ", ".join(idle)
    return f"{text}: {listed}" if listed else text


def _idle(backend: Backend) -> str:
    return f"is {backend.state}" if backend.state is not State.READY else "has weight 0"


def _unbound(kept: Backend | None) -> str:
    if kept is not None:
        return f"the client's backend {kept.name} takes no new flows, so the strategy decides"
    return "no flow of this client is known; one with a flow, now or lately, keeps its backend"

"""Why a flow gets its backend: the balancer's decision, in words.

Lives here: ``explain`` (one flow), ``shares`` (what of all new flows each backend gets).
Rules: the objects are those that the workers decide with, and the decision is theirs. Where it
depends on turns or on live flows, which a worker alone knows, it is left open, with the backends
that it is between: no backend is ever made up. A strategy of the operator's own is never called.
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


@dataclass(frozen=True, slots=True)
class DecisionStep:
    """One step of a decision: what was looked at (service, state, flow, affinity, strategy)."""

    about: str
    text: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that may get the flow, and its share of all new flows where that is known."""

    backend: Backend
    share: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """``backend`` is None where the flow gets none, and where it is left open: then there are
    ``candidates``, in the order of the configuration.
    """

    service: VirtualService | None
    backend: Backend | None
    candidates: tuple[Candidate, ...]
    why: tuple[DecisionStep, ...]


def explain(
    balancer: Balancer, flow: NewFlow, existing: Backend | None = None, *, seeded: bool = True
) -> Explanation:
    """Which backend ``flow`` gets, and why. ``existing`` is the backend of a flow that lives.

    ``seeded`` is false where the balancer's hashes have another seed than the objects here.
    """
    service = balancer.find(flow.protocol, flow.key)
    if service is None:
        return Explanation(None, None, (), (DecisionStep("service", _stranger(balancer, flow)),))
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
    why.append(DecisionStep("strategy", reason))
    if strategy.hashes and seeded:
        backend = balancer.choose(service, flow, lambda _: False)
        return Explanation(service, backend, (), tuple(why))
    share = shares(service)
    candidates = tuple(Candidate(backend, share[backend]) for backend in service.pool.ready)
    only = candidates[0].backend if len(candidates) == 1 else None
    return Explanation(service, only, () if only is not None else candidates, tuple(why))


def shares(service: VirtualService) -> dict[Backend, float | None]:
    """The share of all new flows that each ready backend gets in the long run; None where that is
    not known (``Strategy.shares``).
    """
    return service.strategy.shares(service.pool.ready)


def described(service: VirtualService) -> str:
    """A service as messages tell it: its name, and what it claims."""
    return f"`{service.name}` has {ipaddress.ip_address(service.vip)}, {_claims(service)}"


def _claims(service: VirtualService) -> str:
    names = ", ".join(PROTOCOL_NAMES[protocol] for protocol in service.protocols)
    if service.ports == ALL_PORTS:
        return f"{names}, all ports"
    spans = [str(first) if first == last else f"{first}-{last}" for first, last in service.ports]
    return f"{names}, port{'' if spans[0].isdigit() and not spans[1:] else 's'} {', '.join(spans)}"


def _stranger(balancer: Balancer, flow: NewFlow) -> str:
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

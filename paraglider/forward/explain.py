"""Explains which backend a flow gets, by a configuration and the state of a running daemon.

Lives here: ``Situation`` (which backend a flow gets, and why), ``Capture`` (the flows among
captured packets), ``compare`` (what another file would change).
Rules: the services are made as for a worker, by ``services``, so the decisions are the worker's. No
I/O.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from paraglider.config.deciding import why_not_kernel
from paraglider.config.model import BackendConfig, Config
from paraglider.config.types import Exempt
from paraglider.core.balancer import Balancer
from paraglider.core.client_hello import Hello
from paraglider.core.explain import Decider, DecisionStep, Explanation, explain, shares
from paraglider.core.flow import PROTOCOL_NAMES, TCP, UDP
from paraglider.core.impact import Impact, Moved, Overlap, impact, moved, overlaps, same
from paraglider.core.packet import ACK, ECHO_REQUEST, FLOW, SYN, Parsed, parse, reverse
from paraglider.core.pool import Backend, Event, State
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies import NewFlow, Registry
from paraglider.forward.listing import NOTHING, LiveFlow, LiveState
from paraglider.forward.services import make_services

#: most flows of a capture that are listed; packets of further ones are counted
MOST_FLOWS: Final = 100_000

#: the event that leads from ready to each state
_EVENTS: Final = {
    State.READY: (),
    State.DRAIN: (Event.SET_DRAIN,),
    State.MAINT: (Event.SET_MAINT,),
    State.DOWN: (Event.CHECK_FAILED,),
    State.DRAIN_DOWN: (Event.SET_DRAIN, Event.CHECK_FAILED),
}


class Situation:
    """The services of ``config`` as a worker has them; with ``live``, in the state of a running
    daemon.

    ``registry`` has the strategies that they name (``policies.load``). For a service that hashes
    without a seed (``Config.seeded``) all possible backends are listed.
    """

    def __init__(self, config: Config, registry: Registry, live: LiveState = NOTHING) -> None:
        self.config = _with_live_backends(config, live)
        self.services = make_services(self.config, lambda _method: True, 0, registry)
        self.balancer = Balancer(ServiceMap(self.services))
        self._configured = {service.name: service for service in config.services}
        self._deciding = live.deciding
        self._seeded = {s.name for s in config.services if s.seed is not None}
        self._by_name = {service.name: service for service in self.services}
        self._existing: dict[tuple[int, bytes], tuple[str, Backend]] = {}
        self._apply_live_states(live)
        for each in live.flows:
            self._add_live_flow(each)

    def explain(
        self, flow: NewFlow, hello: Hello | None = None, owner: str | None = None
    ) -> Explanation:
        """The backend that ``flow`` gets, and the reason.

        For a service with routes: ``hello`` is the ClientHello, None if there is none; ``owner`` is
        the name of the service that has the flow, if that is known.
        """
        exempt = next((e for e in self.config.network.exempt if _matches(e, flow)), None)
        if exempt is not None:
            step = DecisionStep("exempt", f"`exempt` has {exempt}: the packet is not balanced")
            return Explanation(None, None, (), (step,))
        known, existing = self._existing.get((flow.protocol, flow.key), (owner, None))
        service = self.balancer.find(flow.protocol, flow.key)
        taken = None
        if service is not None and service.name in self.balancer.services.routes:
            service, taken = self._routed(service, hello, known)
        seeded = service is None or service.name in self._seeded
        decider = None if service is None else self._decider(service, flow)
        found = explain(
            self.balancer, flow, existing, seeded=seeded, decider=decider, service=service
        )
        if taken is not None:
            found = replace(found, why=(taken, *found.why))
        return found if service is None else self._with_source(service, found)

    def _routed(
        self, service: VirtualService, hello: Hello | None, owner: str | None
    ) -> tuple[VirtualService, DecisionStep]:
        """The service that takes a connection to ``service``, which has routes, and why."""
        has = self._by_name.get(owner) if owner is not None else None
        if has is not None and has.route is not None and has.route.service == service.name:
            return has, DecisionStep("route", f"the connection is one of `{has.name}`")
        table = self.balancer.services.routes[service.name]
        if hello is None:
            text = "no name and no protocol is given (--sni, --alpn): the service's own backends"
            return service, DecisionStep("route", text)
        said = " with ".join(filter(None, (hello.sni or "no name", ", ".join(hello.alpn))))
        route = table.find(hello)
        if route is None:
            return service, DecisionStep("route", f"none takes {said}: the service's own backends")
        return route, DecisionStep("route", f"`{route.name}` takes {said}")

    def _with_source(self, service: VirtualService, found: Explanation) -> Explanation:
        """``found`` with the source address that the backend sees, if the file has one."""
        source = self._configured[service.name].snat
        if source is None or (found.backend is None and not found.candidates):
            return found
        whose = "the balancer's " if self._configured[service.name].snat_address is None else ""
        step = DecisionStep("source", f"the backend sees {whose}{source} as the source")
        return replace(found, why=(*found.why, step))

    def source_of(self, service: VirtualService) -> str | None:
        """The source of the backends of ``service``, if they are neither in the file nor known."""
        source = self._configured[service.name].source
        return None if source is None else source.file or source.dns

    def decides(self, service: VirtualService) -> str:
        """What decides about new flows of ``service``, where BPF carries: "kernel", "worker", or
        "hash" of the kernel for each packet.
        """
        configured = self._configured[service.name]
        if self._deciding.get(service.name, why_not_kernel(configured)) != "":
            return "worker"
        return "hash" if configured.decide == "hash" else "kernel"

    def _decider(self, service: VirtualService, flow: NewFlow) -> Decider | None:
        """What decides about a new ``flow`` of ``service``, if the file wants the kernel to."""
        configured = self._configured[service.name]
        why = self._deciding.get(service.name, why_not_kernel(configured))
        if configured.decide == "python" or why is None:
            return None
        if flow.protocol not in (TCP, UDP):
            why = "the kernel decides about TCP and UDP only"
        if why:
            return Decider(False, f"a worker: {why}")
        each = " for each packet by itself," if configured.decide == "hash" else ""
        where = "" if service.name in self._deciding else ", where BPF carries"
        return Decider(True, f"the kernel,{each} by a table of the backends{where}")

    def pieces_of_route(self, before: VirtualService) -> tuple[Overlap, ...]:
        """The ports of ``before``, a route of another configuration, each with the route of the
        same name here, if it is there and has the same VIP.
        """
        now = self._by_name.get(before.name)
        if now is not None and (now.route is None or now.vip != before.vip):
            now = None
        return tuple(Overlap(TCP, first, last, now) for first, last in before.ports)

    def _apply_live_states(self, live: LiveState) -> None:
        for each in live.backends:
            service = self._by_name.get(each.service)
            backend = self._found(service, each.backend, 0) if service is not None else None
            if service is None or backend is None:
                continue
            if each.weight is not None:
                service.pool.set_weight(backend, each.weight)
            for event in _EVENTS[each.state]:
                service.pool.apply(backend, event)

    def _add_live_flow(self, live: LiveFlow) -> None:
        flow, service = live.flow, self._by_name.get(live.service)
        backend = live.backend
        if service is not None:
            backend = self._found(service, backend, flow.port) or backend
            if service.affinity is not None:
                service.affinity.hold(flow.client, backend)
        self._existing[flow.protocol, flow.key] = (live.service, backend)

    @staticmethod
    def _found(service: VirtualService, named: Backend, port: int) -> Backend | None:
        return next((b for b in service.pool.backends if same(b, named, port)), None)


def _with_live_backends(config: Config, live: LiveState) -> Config:
    """``config`` with the daemon's backends for services whose backends come from a source."""
    found: dict[str, list[BackendConfig]] = {}
    for each in live.backends:
        address = ipaddress.ip_address(each.backend.address)
        backend = BackendConfig(address=address, port=each.backend.port or None)
        found.setdefault(each.service, []).append(backend)
    services = tuple(
        service.with_backends(tuple(found[service.name]))
        if service.source is not None and service.name in found
        else service
        for service in config.services
    )
    return config.model_copy(update={"services": services})


def _matches(exempt: Exempt, flow: NewFlow) -> bool:
    """Whether an end of ``flow`` is exempt, as in the rules."""
    if exempt.port is not None and flow.protocol_name not in ("tcp", "udp"):
        return False
    if exempt.protocol not in (None, flow.protocol_name):
        return False
    ends = ((flow.client, flow.client_port), (flow.vip, flow.port))
    return any(
        exempt.address.packed == address and exempt.port in (None, port) for address, port in ends
    )


@dataclass(slots=True)
class Captured:
    """A flow of a capture: its packets towards the VIP, and whether its first packet is there."""

    flow: NewFlow
    packets: int
    has_first: bool


@dataclass(slots=True)
class Capture:
    """The flows to services among captured packets, and the kinds of the other packets."""

    flows: dict[tuple[int, bytes], Captured] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add_packets(self, packets: Iterable[bytes | None], services: ServiceMap) -> Capture:
        """Add ``packets`` (None: a frame without IP); returns itself."""
        balancer = Balancer(services)
        for packet in packets:
            self.counts[self._classify(packet, balancer)] += 1
        return self

    def _classify(self, packet: bytes | None, balancer: Balancer) -> str:
        if packet is None:
            return "not_ip"
        buffer = bytearray(packet)
        parsed = parse(buffer, 0, len(buffer), whole=False)
        if parsed.reason >= 0 or parsed.kind not in (FLOW, ECHO_REQUEST):
            return "not_flows"  # fragments, ICMP errors and replies, other protocols
        known = self.flows.get((parsed.protocol, parsed.key))
        if known is not None:
            known.packets += 1
            return "to_services"
        if balancer.find(parsed.protocol, parsed.key) is None:
            answers = balancer.find(parsed.protocol, reverse(parsed.key)) is not None
            return "from_services" if answers else "of_others"
        if len(self.flows) >= MOST_FLOWS:
            return "of_further_flows"
        flow = NewFlow(parsed.protocol, parsed.key, 0.0)
        has_first = _is_first_packet(buffer, parsed)
        self.flows[parsed.protocol, parsed.key] = Captured(flow, 1, has_first)
        return "to_services"


def _is_first_packet(buffer: bytearray, parsed: Parsed) -> bool:
    """Whether this packet has_first a flow."""
    flags = parsed.transport + 13
    if parsed.protocol != TCP or flags >= len(buffer):
        return parsed.protocol != TCP
    return buffer[flags] & (SYN | ACK) == SYN


@dataclass(frozen=True, slots=True)
class ServiceImpact:
    """The service ``after`` (None: none) that gets the ``pieces`` of ``before``.

    ``moved`` is None if one of the two has no hash. ``decides`` is what decides before and after
    (``Situation.decides``).
    """

    before: VirtualService
    after: VirtualService | None
    pieces: tuple[Overlap, ...]
    moved: Moved | None
    shares: dict[str, tuple[float | None, float | None]]
    decides: tuple[str, str]


def compare(old: Situation, new: Situation) -> Iterator[ServiceImpact]:
    """Compare each service of ``old`` with the new configuration."""
    for before in old.services:
        if before.route is not None:
            yield _change(old, new, before, new.pieces_of_route(before))
            continue
        found: dict[int, list[Overlap]] = {}
        for piece in overlaps(before, old.balancer.services, new.balancer.services):
            found.setdefault(id(piece.service), []).append(piece)
        for pieces in found.values():
            yield _change(old, new, before, tuple(pieces))


def _change(
    old: Situation, new: Situation, before: VirtualService, pieces: tuple[Overlap, ...]
) -> ServiceImpact:
    after, port = pieces[0].service, pieces[0].first
    if after is None:
        return ServiceImpact(before, None, pieces, None, {}, (old.decides(before), ""))
    had = {b.name: share for b, share in shares(before).items()}
    have = {b.name: share for b, share in shares(after).items()}
    both = {name: (had.get(name, 0.0), have.get(name, 0.0)) for name in {**had, **have}}
    decides = (old.decides(before), new.decides(after))
    found = moved(before, after, pieces[0].protocol, port)
    return ServiceImpact(before, after, pieces, found, both, decides)


def impacts(
    flows: Iterable[tuple[NewFlow, Backend | None]], old: Situation, new: Situation, lives: bool
) -> dict[str, Counter[Impact]]:
    """The impact on ``flows`` (with their backends, None: by ``old``), by service name; without
    flows to no service of ``old``.
    """
    counts: dict[str, Counter[Impact]] = {}
    for flow, actual in flows:
        before = old.explain(flow)
        if before.service is not None:
            backend = actual if actual is not None else before.backend
            counts.setdefault(before.service.name, Counter())[
                impact(flow, backend, lives, new.explain(flow, owner=before.service.name))
            ] += 1
    return counts


def spelled(piece: Overlap) -> str:
    """A piece of a service as text."""
    protocol = PROTOCOL_NAMES[piece.protocol]
    if piece.protocol not in (TCP, UDP) or (piece.first, piece.last) == (1, 65535):
        return protocol
    span = str(piece.first) if piece.first == piece.last else f"{piece.first}-{piece.last}"
    return f"{protocol} {span}"

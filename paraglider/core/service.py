"""Services as the packet path sees them, and the map that finds one by protocol, VIP and port.

Where several services share a VIP and protocol the narrower claim wins: an exact port before a
range, a range before all ports. Configuration guarantees that two equal claims do not meet.
Rules: look-ups cost a dictionary access for exact ports and all ports, and a walk over the ranges
of that VIP alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from paraglider.core.affinity import Affinity
from paraglider.core.flow import ICMP, ICMP6
from paraglider.core.pool import Backend, Pool
from paraglider.core.strategies.base import Strategy
from paraglider.core.translation import Translation

Ports = tuple[tuple[int, int], ...]
ALL_PORTS: Ports = ((1, 65535),)


class Service:
    """A VIP (packed), the transport protocols and port ranges (inclusive), over one pool.

    ``method`` is the name of its forwarding method, by which its datapath and carrier are found.
    ``direct`` tells that replies do not come back through here. ``echo`` tells that ICMP echo
    belongs to the service (``protocol: any``). ``offloaded`` tells that the kernel carries its
    flows, ``routed`` that its packets stay as they are (dsr). ``udp_reply`` is for how many seconds
    an answered UDP flow is kept, 0 for as long as any. Every backend has one translation; one that
    ``before``, the service that this one takes the place of, has alike is the same object, so that
    the flows to it are this service's.
    """

    def __init__(
        self,
        name: str,
        vip: bytes,
        protocols: Sequence[int],
        ports: Ports,
        pool: Pool,
        strategy: Strategy,
        *,
        affinity: Affinity | None = None,
        direct: bool = False,
        echo: bool = False,
        method: str = "",
        offloaded: bool = False,
        routed: bool = False,
        udp_reply: float = 0.0,
        before: Service | None = None,
    ) -> None:
        self.name = name
        self.vip = vip
        self.ports = ports
        self.pool = pool
        self.strategy = strategy
        self.affinity = affinity
        self.direct = direct
        self.method = method
        self.offloaded = offloaded
        self.routed = routed
        self.protocols = tuple(protocols)
        if echo:
            self.protocols += (ICMP if len(vip) == 4 else ICMP6,)
        exact = ports[0][0] if len(ports) == 1 and ports[0][0] == ports[0][1] else 0
        self.translations: dict[Backend, Translation] = {}
        for backend in pool.backends:
            translation = Translation(
                vip,
                exact,
                backend,
                direct=direct,
                unchanged=routed,
                affinity=affinity,
                udp_reply=udp_reply,
            )
            known = None if before is None else before.translations.get(backend)
            if known is not None and known.equals(translation):
                known.udp_reply = udp_reply
                translation = known
            self.translations[backend] = translation
        pool.watch(self._lose)
        pool.watch(strategy.prepare)

    def _lose(self, _ready: tuple[Backend, ...]) -> None:
        """Flows to backends that are lost end, those to backends that came back live on."""
        for backend, translation in self.translations.items():
            translation.lose(backend.lost, backend.datagrams_lost)


class _Claims:
    """What the services of one protocol and VIP claim of its ports."""

    __slots__ = ("everything", "exact", "ranges")

    def __init__(self) -> None:
        self.exact: dict[bytes, Service] = {}
        self.ranges: list[tuple[bytes, bytes, Service]] = []
        self.everything: Service | None = None


class ServiceMap:
    """Finds the service of a packet by the bytes of its destination."""

    def __init__(self, services: Sequence[Service]) -> None:
        self.services = tuple(services)
        self._claims: dict[tuple[int, bytes], _Claims] = {}
        for service in services:
            for protocol in service.protocols:
                claims = self._claims.setdefault((protocol, service.vip), _Claims())
                self._claim(claims, protocol, service)
        self._sources: dict[tuple[int, bytes], list[tuple[bytes, bytes]]] = {}
        for service in services:
            if not (service.direct or service.offloaded or service.routed):
                self._add_sources(service)

    def _add_sources(self, service: Service) -> None:
        if service.ports == ALL_PORTS:
            return  # also what a backend sends as a client of others comes from such a port
        for protocol in service.protocols:
            for backend in service.pool.backends:
                spans = self._sources.setdefault((protocol, backend.address), [])
                mapped = ((backend.port, backend.port),) if backend.port else service.ports
                spans += ((a.to_bytes(2, "big"), b.to_bytes(2, "big")) for a, b in mapped)

    def is_source(self, protocol: int, address: bytes, port: bytes) -> bool:
        """Whether packets of ``protocol`` from ``address`` (packed) and ``port`` (2 bytes) are a
        backend's answers, which pass here in the name of a VIP or not at all. Of a service on all
        ports nobody can tell.
        """
        spans = self._sources.get((protocol, address))
        return spans is not None and any(first <= port <= last for first, last in spans)

    @staticmethod
    def _claim(claims: _Claims, protocol: int, service: Service) -> None:
        if service.ports == ALL_PORTS or protocol in (ICMP, ICMP6):
            claims.everything = service
            return
        for first, last in service.ports:
            if first == last:
                claims.exact[first.to_bytes(2, "big")] = service
            else:
                span = (first.to_bytes(2, "big"), last.to_bytes(2, "big"), service)
                claims.ranges.append(span)

    def find(self, protocol: int, vip: bytes, port: bytes) -> Service | None:
        """The service of packets of ``protocol`` to ``vip`` (packed) and ``port`` (2 bytes).

        For ICMP echo the port is not looked at.
        """
        claims = self._claims.get((protocol, vip))
        if claims is None:
            return None
        service = claims.exact.get(port)
        if service is not None:
            return service
        for first, last, service in claims.ranges:
            if first <= port <= last:  # big-endian bytes of equal length compare as numbers
                return service
        return claims.everything

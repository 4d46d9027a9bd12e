"""The services of the packet path, and the map from protocol, VIP and port to a service.

If several services share a VIP and protocol, an exact port takes precedence over a range, and a
range over all ports. The configuration guarantees that equal claims do not exist.
Rules: a look-up is one dictionary access for exact ports and all ports, or a walk over the ranges
of the VIP.
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


class VirtualService:
    """A VIP (packed), the transport protocols and port ranges (inclusive), over one pool.

    ``method`` is the name of its forwarding method, which selects datapath and carrier. ``direct``
    is true if replies bypass this host; ``echo`` if ICMP echo belongs to the service (``protocol:
    any``); ``offloaded`` if the kernel carries its flows; ``routed`` if its packets are not
    rewritten (dsr). ``udp_reply`` is the timeout of an answered UDP flow in seconds, 0 for the
    default. Every backend has one translation. ``before`` is the service that this one replaces:
    equal translations are shared with it, so that existing flows belong to this service.
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
        before: VirtualService | None = None,
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
        pool.watch(self._update_translations)
        pool.watch(strategy.prepare)

    def _update_translations(self, _ready: tuple[Backend, ...]) -> None:
        """End the flows to lost backends, and keep those to backends that returned."""
        for backend, translation in self.translations.items():
            translation.set_lost(backend.lost, backend.datagrams_lost)


class _Claims:
    """The ports of one protocol and VIP, and their services."""

    __slots__ = ("everything", "exact", "ranges")

    def __init__(self) -> None:
        self.exact: dict[bytes, VirtualService] = {}
        self.ranges: list[tuple[bytes, bytes, VirtualService]] = []
        self.everything: VirtualService | None = None


class ServiceMap:
    """Maps the destination of a packet to its service."""

    def __init__(self, services: Sequence[VirtualService]) -> None:
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

    def _add_sources(self, service: VirtualService) -> None:
        if service.ports == ALL_PORTS:
            return  # packets that the backend sends as a client have such source ports too
        for protocol in service.protocols:
            for backend in service.pool.backends:
                spans = self._sources.setdefault((protocol, backend.address), [])
                mapped = ((backend.port, backend.port),) if backend.port else service.ports
                spans += ((a.to_bytes(2, "big"), b.to_bytes(2, "big")) for a, b in mapped)

    def is_source(self, protocol: int, address: bytes, port: bytes) -> bool:
        """Whether packets of ``protocol`` from ``address`` (packed) and ``port`` (2 bytes) are
        answers of a backend, which must leave with a VIP as source. Services on all ports are
        ignored, because their answers cannot be distinguished.
        """
        spans = self._sources.get((protocol, address))
        return spans is not None and any(first <= port <= last for first, last in spans)

    @staticmethod
    def _claim(claims: _Claims, protocol: int, service: VirtualService) -> None:
        if service.ports == ALL_PORTS or protocol in (ICMP, ICMP6):
            claims.everything = service
            return
        for first, last in service.ports:
            if first == last:
                claims.exact[first.to_bytes(2, "big")] = service
            else:
                span = (first.to_bytes(2, "big"), last.to_bytes(2, "big"), service)
                claims.ranges.append(span)

    def find(self, protocol: int, vip: bytes, port: bytes) -> VirtualService | None:
        """The service of packets of ``protocol`` to ``vip`` (packed) and ``port`` (2 bytes).

        For ICMP echo the port is ignored.
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

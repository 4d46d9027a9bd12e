"""The services of the packet path, and the map from protocol, VIP and port to a service.

If several services share a VIP and protocol, an exact port takes precedence over a range, and a
range over all ports. The configuration guarantees that equal claims do not exist.
Rules: a look-up is one dictionary access for exact ports and all ports, or a walk over the ranges
of the VIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from paraglider.core.adoption_tables import AdoptionTables
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
    rewritten (dsr). It ``adopts`` flows that are not known here if its strategy is ``repeatable``.
    ``udp_reply`` is the timeout of an answered UDP flow in seconds, 0 for the default. Every
    backend has one translation. ``before`` is the service that this one replaces: equal
    translations are shared with it, so that existing flows belong to this service.
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
        adopts: bool = False,
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
        self._tables: AdoptionTables | None = None
        if adopts:
            self._tables = AdoptionTables(pool, strategy, before._tables if before else None)

    @property
    def adoption(self) -> AdoptionTables | None:
        """The tables that find the backends of flows which are not known here; None if the service
        adopts none. (A policy says only once it is imported whether it is ``repeatable``.)
        """
        return self._tables if self.strategy.repeatable else None

    def tick(self, now: float) -> None:
        """Advance what depends on time to ``now`` (seconds); called periodically."""
        self.pool.tick(now)
        if self._tables is not None:
            self._tables.tick(now)

    def _update_translations(self, _ready: tuple[Backend, ...]) -> None:
        """End the flows to lost backends, and keep those to backends that returned."""
        for backend, translation in self.translations.items():
            translation.set_lost(backend.lost, backend.datagrams_lost)


class _Source(NamedTuple):
    """Source ports, first and last, of a backend's answers."""

    first: bytes
    last: bytes
    service: VirtualService
    translation: Translation


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
        self._sources: dict[tuple[int, bytes], list[_Source]] = {}
        self._all_ports: dict[tuple[int, bytes], set[bytes]] = {}  # VIPs with all of a backend's
        for service in services:
            if not (service.direct or service.offloaded or service.routed):
                self._add_sources(service)

    def _add_sources(self, service: VirtualService) -> None:
        if service.ports == ALL_PORTS:
            # No sources: packets that the backend sends as a client have such source ports too.
            for protocol, backend in product(service.protocols, service.pool.backends):
                self._all_ports.setdefault((protocol, backend.address), set()).add(service.vip)
            return
        for protocol in service.protocols:
            for backend in service.pool.backends:
                sources = self._sources.setdefault((protocol, backend.address), [])
                ports = ((backend.port, backend.port),) if backend.port else service.ports
                for first, last in ports:
                    span = first.to_bytes(2, "big"), last.to_bytes(2, "big")
                    sources.append(_Source(*span, service, service.translations[backend]))

    def is_source(self, protocol: int, address: bytes, port: bytes) -> bool:
        """Whether packets of ``protocol`` from ``address`` (packed) and ``port`` (2 bytes) are
        answers of a backend, which must leave with a VIP as source. Services on all ports are
        ignored, because their answers cannot be distinguished.
        """
        sources = self._sources.get((protocol, address))
        return sources is not None and any(each.first <= port <= each.last for each in sources)

    def answering(self, protocol: int, address: bytes, port: bytes) -> Translation | None:
        """The translation of packets of ``protocol`` from ``address`` (packed) and ``port`` (2
        bytes), if they answer for one VIP only and its service adopts flows; else None.
        """
        sources = self._sources.get((protocol, address), ())
        found = [each for each in sources if each.first <= port <= each.last]
        if len(found) != 1 or found[0].service.adoption is None:
            return None
        others = self._all_ports.get((protocol, address), set())
        return None if others - {found[0].service.vip} else found[0].translation

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

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
from paraglider.core.hello_routes import RouteMatch, RouteTable
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
    ``udp_reply`` is the timeout of an answered UDP flow in seconds, 0 for the default. A service
    with ``route`` claims no ports: another service of the same ports hands it connections. Every
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
        route: RouteMatch | None = None,
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
        self.route = route
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


class Answer(NamedTuple):
    """The service and the translation by which a backend's packet may be an answer."""

    service: VirtualService
    translation: Translation


class _Answers:
    """The answers of one backend by one protocol, by their source ports."""

    __slots__ = ("everything", "exact", "ranges")

    def __init__(self) -> None:
        self.exact: dict[bytes, list[Answer]] = {}
        self.ranges: list[tuple[bytes, bytes, Answer]] = []  # first and last port
        #: those of services on all ports: no sources, since packets that the backend sends as a
        #: client have such ports too
        self.everything: list[Answer] = []

    def at(self, port: bytes) -> list[Answer]:
        """Those of services with single ports or ranges that have the source ``port``."""
        found = self.exact.get(port, [])
        if self.ranges:
            found = found + [each for first, last, each in self.ranges if first <= port <= last]
        return found


class _Claims:
    """The ports of one protocol and VIP, and their services."""

    __slots__ = ("everything", "exact", "ranges")

    def __init__(self) -> None:
        self.exact: dict[bytes, VirtualService] = {}
        self.ranges: list[tuple[bytes, bytes, VirtualService]] = []
        self.everything: VirtualService | None = None


class ServiceMap:
    """Maps the destination of a packet to its service.

    ``routes`` has the tables of the services that hand connections to others, by their names.
    """

    def __init__(self, services: Sequence[VirtualService]) -> None:
        self.services = tuple(services)
        self.routes: dict[str, RouteTable[VirtualService]] = {}
        self._claims: dict[tuple[int, bytes], _Claims] = {}
        for service in services:
            if service.route is not None:
                table = self.routes.setdefault(service.route.service, RouteTable())
                table.add(service.route, service)
                continue
            for protocol in service.protocols:
                claims = self._claims.setdefault((protocol, service.vip), _Claims())
                self._claim(claims, protocol, service)
        self._answers: dict[tuple[int, bytes], _Answers] = {}  # by protocol and backend's address
        for service in services:
            if not (service.direct or service.offloaded or service.routed):
                self._add_answers(service)

    def _add_answers(self, service: VirtualService) -> None:
        for protocol, backend in product(service.protocols, service.pool.backends):
            answers = self._answers.setdefault((protocol, backend.address), _Answers())
            answer = Answer(service, service.translations[backend])
            if service.ports == ALL_PORTS:
                answers.everything.append(answer)
                continue
            ports = ((backend.port, backend.port),) if backend.port else service.ports
            for first, last in ports:
                span = first.to_bytes(2, "big"), last.to_bytes(2, "big")
                if first == last:
                    answers.exact.setdefault(span[0], []).append(answer)
                else:
                    answers.ranges.append((*span, answer))

    def is_source(self, protocol: int, address: bytes, port: bytes) -> bool:
        """Whether packets of ``protocol`` from ``address`` (packed) and ``port`` (2 bytes) are
        answers of a backend, which must leave with a VIP as source. Services on all ports are
        ignored, because their answers cannot be distinguished.
        """
        answers = self._answers.get((protocol, address))
        return answers is not None and bool(answers.at(port))

    def answering(self, protocol: int, address: bytes, port: bytes) -> Translation | None:
        """The translation of packets of ``protocol`` from ``address`` (packed) and ``port`` (2
        bytes), if they answer for one VIP only and its service adopts flows; else None.
        """
        answers = self._answers.get((protocol, address))
        found = [] if answers is None else answers.at(port)
        if answers is None or len(found) != 1 or found[0].service.adoption is None:
            return None
        vip = found[0].service.vip
        others = any(each.service.vip != vip for each in answers.everything)
        return None if others else found[0].translation

    def possible_answers(self, protocol: int, address: bytes, port: bytes) -> list[Answer]:
        """All that packets of ``protocol`` from ``address`` (packed) and ``port`` (2 bytes) may be,
        of services that adopt flows.
        """
        answers = self._answers.get((protocol, address))
        found = [] if answers is None else answers.at(port) + answers.everything
        return [each for each in found if each.service.adoption is not None]

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

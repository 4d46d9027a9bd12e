"""The nft rules about a backend's TCP segment in mid-stream that belongs to no connection, as text.

A balancer that takes over from another one (VRRP) gets answers before it knows their connections.
conntrack would take such a segment for the beginning of a connection of the backend's own
(``nf_conntrack_tcp_loose``): it would leave with the backend's address, and the client's next
segment would get another port, since the connection's own is taken. So it is

    adopted   where the service adopts flows, and the backend's address and port answer for one VIP
              only: the connection begins with it, in the backend's direction, and its source
              becomes the VIP (``ADOPTED``)
    dropped   otherwise, in the forward hook, and counted (``STRAY``): the backend repeats it

Left alone are SYNs (connections of the backend's own); what is addressed to this host; backends of
services on all ports, whose own connections may have any port; those of services with ``snat``,
whose answers are addressed to this host; and connections of which this host sees one direction
only, with another router for the other one: their SYN,ACK has passed here.

Rules: pure text. ``family`` is nft's name of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from paraglider.config.model import Config, QueueConfig, Service
from paraglider.config.types import IPAddress, PortRange
from paraglider.core.strategies import KINDS
from paraglider.netfilter.rules.marks import BASE, MASK
from paraglider.netfilter.rules.traffic import RuleEndpoint, traffic_of

STRAY: Final = "stray"
"""The counter of segments that were dropped, and the chain that drops them."""
ADOPTING: Final = "adopting"
"""The chain in which a connection begins with a backend's segment."""
ADOPTED: Final = "adopted"
"""The counter of a backend's connections that began so; a map of that name leads to it by mark."""

_ENDS: Final = "strays"  # the backends' ends
_ONE_WAY: Final = "one-way"  # connections of which one direction is seen
_ONE_WAY_SECONDS: Final = 120  # until the backend sends what follows its SYN,ACK
_ONE_WAY_SIZE: Final = 65536
_MARKS: Final = "answering-marks"  # a backend's end: its mark …
_VIPS: Final = "answering-vips"  # … and the VIP and the port that it answers for
#: most ports of a service whose answers are adopted: each port of a backend has two elements
_MOST_PORTS: Final = 16
_ADDRESS: Final = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
_FLAGS: Final = "tcp flags & (fin | syn | rst | ack)"


@dataclass(frozen=True, slots=True)
class Answering:
    """A backend's end that answers for one VIP: its address and port, its mark, the VIP's."""

    address: IPAddress
    port: int
    mark: int
    vip: IPAddress
    vip_port: int


@dataclass(frozen=True, slots=True)
class _Owners:
    """The services for which the ports of one address answer: by single ports, and with ranges."""

    single: dict[int, list[Service]]
    ranges: list[tuple[PortRange, Service]]

    def add(self, service: Service, span: PortRange) -> None:
        """The ports ``span`` answer for ``service``."""
        if span.first == span.last:
            self.single.setdefault(span.first, []).append(service)
        else:
            self.ranges.append((span, service))

    def has_another(self, service: Service, port: int) -> bool:
        """Whether ``port`` answers for another VIP than that of ``service``, too. Of one VIP, a
        service on all ports has those that the others leave.
        """
        others = chain(self.single.get(port, ()), (s for span, s in self.ranges if port in span))
        return any(
            other is not service and not (other.all_ports and other.vip.ip == service.vip.ip)
            for other in others
        )


def may_adopt(service: Service) -> bool:
    """Whether ``service`` adopts flows by a strategy that is a hash, or by a class of the
    operator's own, which says only in a worker whether it is one.
    """
    hashes = service.strategy_class.hashes or service.strategy not in KINDS
    return service.adopts and hashes


def answering(services: Iterable[Service], marks: Mapping[str, Sequence[int]]) -> list[Answering]:
    """The ends of ``services`` of one family by whose answers connections are adopted; ``marks``
    are those of their backends.
    """
    passing = [s for s in services if "tcp" in s.protocols and s.snat is None]
    owners: dict[IPAddress, _Owners] = {}
    for service in passing:
        for backend in service.backends:
            owner = owners.setdefault(backend.address, _Owners({}, []))
            for span in service.reply_ports(backend):
                owner.add(service, span)
    found = []
    for service in passing:
        if not may_adopt(service) or sum(map(len, service.ports)) > _MOST_PORTS:
            continue
        for mark, backend in zip(marks[service.name], service.backends, strict=True):
            for span in service.reply_ports(backend):
                for port in range(span.first, span.last + 1):
                    to = service.single_port if backend.port else port
                    if to and not owners[backend.address].has_another(service, port):
                        ends = backend.address, port, mark, service.vip.ip, to
                        found.append(Answering(*ends))
    return found


def stray_ends(config: Config, family: int) -> tuple[RuleEndpoint, ...]:
    """The ends of backends whose segments of no connection are dropped, of ``family`` (4 or 6)."""
    services = tuple(s for s in config.services if s.snat is None and not s.all_ports)
    some = config.model_copy(update={"services": services})
    return traffic_of(some, family, lambda method: method.conntracked).replies


def objects(place: str, family: str) -> Iterator[str]:
    """The lines that add the sets to the table ``place``, if they are missing, and empty that of
    the backends' ends.
    """
    yield f"add set {place} {_ENDS} {{ type {_ADDRESS[family]} . inet_service; flags interval; }}"
    yield f"flush set {place} {_ENDS}"
    kind = f"typeof {_connection(family)}; size {_ONE_WAY_SIZE}; flags dynamic, timeout;"
    yield f"add set {place} {_ONE_WAY} {{ {kind} timeout {_ONE_WAY_SECONDS}s; }}"


def elements(place: str, ends: Iterable[RuleEndpoint]) -> Iterator[str]:
    """The line that fills the set of the backends' ends."""
    items = [
        f"{end.address} . {ports}" for end in ends if end.protocol == "tcp" for ports in end.ports
    ]
    if items:
        yield f"add element {place} {_ENDS} {{ {', '.join(items)} }}"


def one_way(family: str) -> str:
    """The rule that remembers a connection by a backend's SYN,ACK that belongs to none."""
    answer = f"{_FLAGS} == syn | ack"
    return (
        f"{answer} {family} saddr . tcp sport @{_ENDS} add @{_ONE_WAY} {{ {_connection(family)} }}"
    )


def strays(family: str) -> str:
    """The rule, of the forward hook, that jumps to ``stray``; after those for known connections."""
    return f"ct state new {_FLAGS} != syn {family} saddr . tcp sport @{_ENDS} jump {STRAY}"


def stray(family: str, exempt: Iterable[str]) -> Iterator[str]:
    """Drop the segments; ``exempt`` are rules for all packets that are never balanced."""
    yield "ct status confirmed return"
    yield from exempt
    yield f"{_connection(family)} @{_ONE_WAY} return"
    yield f"counter name {STRAY} drop"


def adopting_objects(place: str, family: str) -> Iterator[str]:
    """The lines that add the maps of adoption to the table ``place``, if they are missing."""
    end = f"{_ADDRESS[family]} . inet_service"
    for name, value in ((_MARKS, "mark"), (_VIPS, end)):
        yield f"add map {place} {name} {{ type {end} : {value}; }}"


def adopting_elements(place: str, ends: Iterable[Answering]) -> Iterator[str]:
    """The lines that fill these maps anew."""
    for name in (_MARKS, _VIPS):
        yield f"flush map {place} {name}"
    for end in ends:
        key = f"{end.address} . {end.port}"
        yield f"add element {place} {_MARKS} {{ {key} : 0x{end.mark:08x} }}"
        yield f"add element {place} {_VIPS} {{ {key} : {end.vip} . {end.vip_port} }}"


def begins(family: str) -> str:
    """The rule, of nat's prerouting hook, that jumps to ``adopting``."""
    return f"{_FLAGS} == ack {family} saddr . tcp sport @{_ENDS} jump {ADOPTING}"


def adopting(
    family: str,
    queue: QueueConfig,
    exempt: Iterable[str],
    timed: Iterable[str],
    lost: Collection[int] = (),
) -> Iterator[str]:
    """Give the connection the backend's mark, up to ``queue.openings_rate`` of them a second;
    ``timed`` are the rules that set its timeouts, ``lost`` the marks of the lost backends, whose
    connections have been ended.
    """
    yield from exempt
    yield f"{_connection(family)} @{_ONE_WAY} return"
    if queue.openings_rate:
        rate, burst = queue.openings_rate, max(queue.openings_rate, 5)
        yield f"limit rate over {rate}/second burst {burst} packets return"
    yield f"ct mark set {family} saddr . tcp sport map @{_MARKS}"
    yield f"ct mark & 0x{MASK:08x} != 0x{BASE:08x} return"
    if lost:
        marks = ", ".join(f"0x{mark:08x}" for mark in sorted(lost))
        yield f"ct mark {{ {marks} }} ct mark set 0x0 return"
    yield f"counter name ct mark map @{ADOPTED}"
    yield from timed


def translation(family: str) -> str:
    """The rule, of nat's postrouting hook, by which the source of such a connection becomes the
    VIP: no other one with a mark of ours has kept its destination.
    """
    return f"ct status & dnat == 0 snat to {family} saddr . tcp sport map @{_VIPS}"


def carried() -> Iterator[str]:
    """As ``nft.carried``, where connections may have begun with the backend's segment."""
    translated = "ct status dnat"
    yield f"ct direction original {translated} counter name ct mark map @requests return"
    yield f"ct direction reply {translated} counter name ct mark map @replies return"
    yield "ct direction original counter name ct mark map @replies return"
    yield "ct direction reply counter name ct mark map @requests return"


def _connection(family: str) -> str:
    return f"{family} saddr . tcp sport . {family} daddr . tcp dport"

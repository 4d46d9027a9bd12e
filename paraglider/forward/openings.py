"""The nft table that limits new flows before the workers' queues, against floods.

A packet that may open a flow costs a worker, the backends and the network between them some ten
times more than dropping it before the queue. So the rate of such packets from unknown clients is
limited. A client that has proved that it receives the answers is known for a while, and is not
limited. Datagrams of flows in a worker's table wait with established traffic, all others with the
openings.

    arriving   before the queue: packets that open a flow; those beyond the limits are dropped and
               counted, or left to the kernel's hash (``OpeningsPart.hashed``)
    accepted   after the queue: a datagram's flow becomes known. If answers bypass this host, a
               client that ends or leases a flow that it opened becomes known
    answers    a backend's answers to SYNs of known clients
    replied    after the queue: a client to which a backend sends data or its FIN becomes known; TCP
               does that after the client has acknowledged the backend's SYN

Limits, for a family and a protocol: ``queue.openings_rate`` per worker, and at most the share
``_SHARE`` of it for each network of clients (/24, /56), so that a flood from one network does not
limit the others. If the sets are full no further client becomes known, and nothing else changes.
Rules: one table per family, ``ip paraglider-openings`` and ``ip6 paraglider-openings``. The text is
one transaction that leads to the same table from any previous one; base chains and the elements
that packets have added to the sets stay. If the kernel or nft does not support this, nothing is
limited, and datagrams wait with established traffic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from operator import is_
from typing import Final, NamedTuple

from paraglider.config.model import Config
from paraglider.config.types import ALL_PORTS, PortRange
from paraglider.forward import registry
from paraglider.forward.rule_parts import OpeningsPart
from paraglider.netfilter.rules.nft import NFT_FAMILY, exempted
from paraglider.netfilter.rules.steering import KNOWN_MARK, MARK_BASE, UNKNOWN_MARK
from paraglider.netfilter.rules.traffic import RuleEndpoint, RuleTraffic, traffic_of, united_ports

TABLE: Final = "paraglider-openings"

REFUSED: Final = {"tcp": "refused-tcp", "udp": "refused-udp", "icmp": "refused-icmp"}
"""The counters of dropped packets, by protocol."""

#: seconds for which a client is known after its last answer
_KNOWN_SECONDS: Final = 600
#: seconds for which a flow is known after its first packet, which may be a flood's …
_FIRST_SECONDS: Final = 10
#: … and after a further datagram; more than a lease of dsr lasts
_FLOW_SECONDS: Final = 60
#: most known clients and flows; some 100 bytes each
_CLIENTS: Final = 1 << 18
_FLOWS: Final = 1 << 20
#: most networks of clients with a limit, and their timeout in seconds
_NETWORKS: Final = 1 << 16
_NETWORK_SECONDS: Final = 10
#: seconds for which a dropped SYN is remembered: clients repeat it after one and three
_AGAIN_SECONDS: Final = 4
#: connections a second that a known client opens with established traffic, and the burst
_UNLIMITED: Final = 500
#: the share of the rate for one network of clients
_SHARE: Final = 10
_NETWORK: Final = {4: "ip saddr & 255.255.255.0", 6: "ip6 saddr & ffff:ffff:ffff:ff00::"}
#: the key of a client: in IPv6 its /64 network
_CLIENT: Final = {4: "ip {}", 6: "ip6 {} & ffff:ffff:ffff:ffff::"}

# Around iptables' mangle table (-150), in which packets are queued, within the chains of leases.
_BASES: Final = {
    "arriving": ("prerouting", -152),
    "accepted": ("prerouting", -146),
    "answers": ("forward", -152),
    "replied": ("forward", -146),
}
_FLAGS: Final = "tcp flags & (fin | syn | rst | ack)"
_ENDS: Final = "tcp flags & (fin | syn | rst) == fin"
_ECHO: Final = {4: "icmp type echo-request", 6: "icmpv6 type echo-request"}


class _Limit(NamedTuple):
    """A rate in packets a second and a burst, which is bounded by the room in the queues."""

    rate: int
    burst: int

    def over(self, share: int = 1) -> str:
        """The match of packets above a fraction of the rate."""
        rate = max(self.rate // share, 1)
        return f"limit rate over {rate}/second burst {max(min(rate, self.burst), 5)} packets"

    def within(self) -> str:
        """The match of packets within the rate."""
        return self.over().replace(" over", "")


def openings_table(config: Config, family: int, workers: int) -> str | None:
    """The nft input for the table of ``family`` with ``workers`` workers, or None if none of its
    packets are queued.
    """
    every = [
        _Queued(method.openings, traffic_of(config, family, partial(is_, method)))
        for method in registry.methods()
        if method.openings is not None
    ]
    every.sort(key=lambda one: one.part.hashed)
    present = [one for one in every if one.traffic.services]
    if not present:
        return None
    limit = _Limit(config.queue.openings_rate * workers, config.queue.openings * workers)
    hashed = [one for one in present if one.part.hashed]
    queued = [one for one in present if not one.part.hashed]
    seen = [one for one in queued if one.part.answers and not _unseen(one.traffic)]
    chains = {
        "arriving": _arriving(family, queued, hashed, limit),
        "refused": _refused(family, limit) if queued else (),
        "segment": _segment(family, seen, limit) if queued else (),
        "datagram": _datagram(family, limit) if queued else (),
        "accepted": _accepted(family, queued),
        "answers": _answers(family) if seen else (),
        "replied": _replied(family, queued),
    }
    listened = traffic_of(config, family, lambda method: method.listens)
    place = f"{NFT_FAMILY[family]} {TABLE}"
    lines = [
        *_skeleton(place, family, chains),
        *_elements(place, every, listened),
        *(f"add rule {place} {chain} {rule}" for chain, rules in chains.items() for rule in rules),
    ]
    return "".join(f"{line}\n" for line in lines)


class _Queued(NamedTuple):
    """The limits of a method's new flows, and its traffic of the family."""

    part: OpeningsPart
    traffic: RuleTraffic


def _skeleton(place: str, family: int, chains: Iterable[str]) -> Iterator[str]:
    address = f"ipv{family}_addr"
    yield f"add table {place}"
    yield from (f"add counter {place} {name}" for name in REFUSED.values())
    for name in ("queued-tcp", "queued-udp", "offloaded-tcp", "offloaded-udp", "answering"):
        yield f"add set {place} {name} {{ type {address} . inet_service; flags interval; }}"
        yield f"flush set {place} {name}"
    yield f"add set {place} queued-icmp {{ type {address}; }}"
    yield f"flush set {place} queued-icmp"
    for name, key, size, seconds in (
        ("known", address, _CLIENTS, _KNOWN_SECONDS),
        ("flows", f"{address} . inet_service", _FLOWS, _FIRST_SECONDS),
        ("opened", f"{address} . inet_service", _FLOWS, _FIRST_SECONDS),
        ("again", f"{address} . inet_service", _CLIENTS, _AGAIN_SECONDS),
        ("networks", address, _NETWORKS, _NETWORK_SECONDS),
        ("favoured", address, _NETWORKS, _NETWORK_SECONDS),
    ):
        kind = f"type {key}; size {size}; flags dynamic, timeout; timeout {seconds}s;"
        yield f"add set {place} {name} {{ {kind} }}"
    for chain in chains:
        base = ""
        if chain in _BASES:
            hook, priority = _BASES[chain]
            base = f" {{ type filter hook {hook} priority {priority}; policy accept; }}"
        yield f"add chain {place} {chain}{base}"
    yield from (f"flush chain {place} {chain}" for chain in chains)


def _elements(place: str, every: Sequence[_Queued], listened: RuleTraffic) -> Iterator[str]:
    """The elements of the sets of VIPs and ports. If one method has some ports of a VIP and another
    all ports, the former are excluded from the latter.
    """
    found: dict[str, list[str]] = {}
    traffics = [*(one.traffic for one in every), listened]
    narrow = [end for traffic in traffics for end in traffic.vips if not end.all_ports]
    for one in every:
        kind = "offloaded" if one.part.hashed else "queued"
        for end in one.traffic.vips:
            ports = _left(end, narrow) if end.all_ports else end.ports
            items = found.setdefault(f"{kind}-{end.protocol}", [])
            items.extend(f"{end.address} . {item}" for item in ports)
        if not one.part.hashed:
            found.setdefault("queued-icmp", []).extend(map(str, one.traffic.echo_vips))
    replies = (end for one in every if not one.part.hashed for end in one.traffic.replies)
    for end in replies:
        if end.protocol == "tcp":
            items = found.setdefault("answering", [])
            items.extend(f"{end.address} . {item}" for item in end.ports)
    for name, items in found.items():
        if items:
            yield f"add element {place} {name} {{ {', '.join(items)} }}"


def _left(end: RuleEndpoint, narrow: Iterable[RuleEndpoint]) -> Iterator[PortRange]:
    """The ports of ``end``, which has all, without those of ``narrow``."""
    taken = united_ports(
        ports
        for other in narrow
        if (other.address, other.protocol) == (end.address, end.protocol)
        for ports in other.ports
    )
    first = ALL_PORTS.first
    for ports in taken:
        if first < ports.first:
            yield PortRange(first, ports.first - 1)
        first = ports.last + 1
    if first <= ALL_PORTS.last:
        yield PortRange(first, ALL_PORTS.last)


def _arriving(
    family: int, queued: Sequence[_Queued], hashed: Sequence[_Queued], limit: _Limit
) -> Iterator[str]:
    to = f"{NFT_FAMILY[family]} daddr"
    yield f"meta l4proto tcp {_FLAGS} != syn return"  # nearly every packet ends here
    if hashed:
        yield "ct state established,related return"
    yield 'iifname "lo" return'
    for end in (*queued, *hashed)[0].traffic.exempt:
        yield from exempted(end, family)
    for one in queued:
        if one.part.proven:
            yield f"{one.part.decided} return"
    if queued:
        yield f"{to} . tcp dport @queued-tcp goto segment"
        yield f"{to} . udp dport @queued-udp goto datagram"
    if hashed and limit.rate:
        # A worker's mark: no worker has answered.
        mark = f"{limit.over()} meta mark set 0x{MARK_BASE:08x} return"
        yield from (f"{to} . {p} dport @offloaded-{p} {mark}" for p in ("tcp", "udp"))
    if limit.rate and any(one.traffic.echo_vips for one in queued):
        drop = f"counter name {REFUSED['icmp']} drop"
        yield f"{_ECHO[family]} {to} @queued-icmp {limit.over()} {drop}"


def _segment(family: int, seen: Sequence[_Queued], limit: _Limit) -> Iterator[str]:
    """SYNs: those of unknown clients are limited. Those of known clients wait with established
    traffic, up to a limit, if all answers are ``seen``, so that it is certain who is known.
    """
    client = _CLIENT[family].format("saddr")
    if seen:
        within = f"limit rate {_UNLIMITED}/second burst {_UNLIMITED} packets"
        vips = ", ".join(str(vip) for one in seen for vip in one.traffic.addresses)
        favour = f"update @favoured {{ {client} {within} }}"
        mark = f"meta mark set 0x{KNOWN_MARK:08x} return"
        yield f"{NFT_FAMILY[family]} daddr {{ {vips} }} {client} @known {favour} {mark}"
    if not limit.rate:
        return
    yield f"{client} @known return"
    yield f"{_opened(family)} @again {limit.within()} return"
    yield f"update @networks {{ {_NETWORK[family]} {limit.over(_SHARE)} }} goto refused"
    yield f"{limit.over()} goto refused"


def _refused(family: int, limit: _Limit) -> Iterator[str]:
    """A dropped SYN: a client repeats it, a flood does not."""
    if limit.rate:
        yield f"add @again {{ {_opened(family)} }}"  # stops when the set is full
        yield f"counter name {REFUSED['tcp']} drop"


def _opened(family: int) -> str:
    return f"{NFT_FAMILY[family]} saddr . tcp sport"


def _datagram(family: int, limit: _Limit) -> Iterator[str]:
    """Datagrams: those of unknown flows wait with the openings, and are limited."""
    yield f"{NFT_FAMILY[family]} saddr . udp sport @flows return"
    yield f"meta mark set 0x{UNKNOWN_MARK:08x}"
    if limit.rate:
        yield f"{_CLIENT[family].format('saddr')} @known return"
        yield f"{limit.over()} counter name {REFUSED['udp']} drop"


def _accepted(family: int, queued: Sequence[_Queued]) -> Iterator[str]:
    name = NFT_FAMILY[family]
    client = _CLIENT[family].format("saddr")
    if not any(part.proven or _unseen(traffic) for part, traffic in queued):
        yield "meta l4proto != udp return"  # nearly every packet ends here
    for part, traffic in queued:
        flow = f"{name} saddr . udp sport"
        again = f"update @flows {{ {flow} timeout {_FLOW_SECONDS}s }}"
        for decided in part.verdicts:
            yield f"{decided} {flow} @flows {again} return"
            yield f"{decided} meta l4proto udp add @flows {{ {flow} }} return"
        if part.proven:
            yield f"{part.proven} update @known {{ {client} }} return"
        if _unseen(traffic):
            flow = _opened(family)
            yield f"{part.decided} {_FLAGS} == syn update @opened {{ {flow} }} return"
            for decided in part.verdicts:
                yield f"{decided} {_ENDS} {flow} @opened update @known {{ {client} }}"


def _answers(family: int) -> Iterator[str]:
    """A backend's answers to SYNs of known clients wait with established traffic too."""
    client = _CLIENT[family].format("daddr")
    of = f"{NFT_FAMILY[family]} saddr . tcp sport @answering"
    yield f"{_FLAGS} == syn | ack {of} {client} @known meta mark set 0x{KNOWN_MARK:08x}"


def _unseen(traffic: RuleTraffic) -> bool:
    """Whether answers of ``traffic`` bypass this host."""
    return any(service.answers != "via" for service in traffic.services)


def _replied(family: int, queued: Sequence[_Queued]) -> Iterator[str]:
    of = f"{NFT_FAMILY[family]} saddr . tcp sport"
    client = _CLIENT[family].format("daddr")
    said = "tcp flags & (fin | psh) != 0x0 tcp flags & (syn | rst) == 0x0"
    for part, _ in queued:
        if part.answers:
            yield f"{part.decided} {said} {of} @queued-tcp update @known {{ {client} }}"
            if part.long:  # the source is still the backend
                yield f"{part.long} {said} {of} @answering update @known {{ {client} }}"

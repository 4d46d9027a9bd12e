"""The table of ours by which the kernel carries ``forward: offload`` flows: nft's text.

Lives here: maps from marks to backends, the chains that use them, and what happens to a packet
that no worker has decided about.

    prerouting   a worker's answer is translated; without one the service's hash decides
    answered     the mark is kept in conntrack, the destination becomes the backend
    unanswered   a mark by the kernel's hash of the client's end, by weight, over the same maps
    postrouting  the source, where the service asks for it, and where the client is in the
                 backends' own network, which would answer it directly

Rules: one table a family, ``ip paraglider`` and ``ip6 paraglider``, so that each is set up and
undone by itself. The text is one transaction that leads to the same table from whatever it was:
base chains are never removed, since with one of them every packet goes that waits in a queue of
the namespace (Linux, net/netfilter/nf_queue.c: nf_queue_nf_hook_drop). Elements and rules are
swapped, so a packet meets the old table or the new one, never half of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from paraglider.config.model import Config, Service
from paraglider.config.types import ALL_PORTS, PortRange
from paraglider.rules.marks import BASE, MASK, backend_marks, target_port
from paraglider.rules.steering import MARK_BASE, MARK_MASK

TABLE = "paraglider"
NFT_FAMILY = {4: "ip", 6: "ip6"}

UNANSWERED = "unanswered"
"""The counter of first packets that no worker decided about."""
GONE = "gone"
"""The counter of first packets that a worker decided for a backend that is no longer there."""

# Just ahead of everybody else's: the first translation of a connection is the one that counts.
_PREROUTING, _POSTROUTING = -105, 95
_MAPS = {
    "backends": "{address} . inet_service",
    "addresses": "{address}",
    "sources": "{address}",
}
_CHAINS = ("answered", UNANSWERED)
_ECHO = {4: "icmp type echo-request", 6: "icmpv6 type echo-request"}


@dataclass(frozen=True, slots=True)
class OffloadTable:
    """The table of ``family``: the nft input that leads to it, and the marks in its maps.

    ``datagrams`` are the UDP ports that it serves: VIP, first port, last port.
    """

    family: int
    text: str
    marks: tuple[int, ...]
    datagrams: tuple[tuple[str, int, int], ...] = ()


def offload_table(
    config: Config, family: int, hairpin: tuple[str, ...], seed: int
) -> OffloadTable | None:
    """The table of ``family`` (4 or 6), or None when it has no ``forward: offload`` service.

    ``hairpin`` are the interfaces towards the backends: what comes in and goes out by the same
    one gets the balancer's address as source. ``seed`` is the 32-bit seed of the hash.
    """
    services = [s for s in config.services if s.family == family and s.forward == "offload"]
    if not services:
        return None
    marks = backend_marks(config)
    lines = [
        *_skeleton(family),
        *_elements(services, marks, family),
        *_rules("prerouting", _prerouting(), family),
        *_rules("answered", _answered(), family),
        *_rules(UNANSWERED, _unanswered(services, marks, family, seed), family),
        *_rules("postrouting", _postrouting(hairpin), family),
    ]
    every = sorted(mark for service in services for mark in marks[service.name])
    datagrams = tuple(
        (str(service.vip.ip), ports.first, ports.last)
        for service in services
        if "udp" in service.protocols
        for ports in service.ports
    )
    return OffloadTable(family, "".join(f"{line}\n" for line in lines), tuple(every), datagrams)


def removal_text(family: int, table: str = TABLE) -> str:
    """The nft input that removes ``table``, which has to be there."""
    return f"delete table {NFT_FAMILY[family]} {table}\n"


def port_match(protocol: str, side: Literal["sport", "dport"], ports: tuple[PortRange, ...]) -> str:
    """The nft match of ``ports`` of a transport protocol at one end of a packet."""
    if ports == (ALL_PORTS,):
        return f"meta l4proto {protocol}"
    shown = [str(item) for item in ports]
    return f"{protocol} {side} {shown[0] if len(shown) == 1 else '{ ' + ', '.join(shown) + ' }'}"


def _skeleton(family: int) -> Iterable[str]:
    """Whatever is missing is added, whatever has content is emptied."""
    place = f"{NFT_FAMILY[family]} {TABLE}"
    address = f"ipv{family}_addr"
    yield f"add table {place}"
    for counter in (UNANSWERED, GONE):
        yield f"add counter {place} {counter}"
    for name, value in _MAPS.items():
        yield f"add map {place} {name} {{ type mark : {value.format(address=address)}; }}"
    for hook, priority in (("prerouting", _PREROUTING), ("postrouting", _POSTROUTING)):
        kind = f"type nat hook {hook} priority {priority}; policy accept;"
        yield f"add chain {place} {hook} {{ {kind} }}"
    for name in _CHAINS:
        yield f"add chain {place} {name}"
    for name in ("prerouting", "postrouting", *_CHAINS):
        yield f"flush chain {place} {name}"
    for name in _MAPS:
        yield f"flush map {place} {name}"


def _elements(
    services: list[Service], marks: dict[str, tuple[int, ...]], family: int
) -> Iterable[str]:
    place = f"{NFT_FAMILY[family]} {TABLE}"
    for service in services:
        for mark, backend in zip(marks[service.name], service.backends, strict=True):
            port = target_port(service, backend)
            name, end = ("backends", f" . {port}") if port else ("addresses", "")
            yield f"add element {place} {name} {{ 0x{mark:08x} : {backend.address}{end} }}"
            if service.snat is not None:
                yield f"add element {place} sources {{ 0x{mark:08x} : {service.snat} }}"


def _rules(chain: str, rules: Iterable[str], family: int) -> Iterable[str]:
    return (f"add rule {NFT_FAMILY[family]} {TABLE} {chain} {rule}" for rule in rules)


def _prerouting() -> Iterable[str]:
    yield f"meta mark & 0x{MASK:08x} == 0x{BASE:08x} jump answered"
    # The maps did not have it: the backend left while the packet waited.
    yield f"meta mark & 0x{MASK:08x} == 0x{BASE:08x} counter name {GONE} goto {UNANSWERED}"
    # A worker's own mark: nobody reads its queue, or the queue is full.
    yield (
        f"meta mark & 0x{MARK_MASK:08x} == 0x{MARK_BASE:08x}"
        f" counter name {UNANSWERED} goto {UNANSWERED}"
    )


def _answered() -> Iterable[str]:
    yield "ct mark set meta mark"
    yield "meta l4proto { tcp, udp } dnat to meta mark map @backends"
    yield "dnat to meta mark map @addresses"


def _unanswered(
    services: list[Service], marks: dict[str, tuple[int, ...]], family: int, seed: int
) -> Iterable[str]:
    # Some ports of a VIP may be one service's and all the others another's: the narrower first.
    for service in sorted(services, key=lambda service: service.all_ports):
        mark = _hashed(service, marks[service.name], family, seed)
        to_vip = f"{NFT_FAMILY[family]} daddr {service.vip.ip}"
        for protocol in service.protocols:
            match = f"{to_vip} {port_match(protocol, 'dport', service.ports)}"
            if protocol == "tcp":
                # As a worker has it: any other segment meets the local stack, which answers RST.
                match += " tcp flags & (fin | syn | rst | ack) == syn"
            client = "" if service.affinity == "client" else f" . {protocol} sport"
            yield f"{match} {mark.format(client=client)}"
        if service.protocol == "any":
            yield f"{to_vip} {_ECHO[family]} {mark.format(client='')}"


def _hashed(service: Service, marks: tuple[int, ...], family: int, seed: int) -> str:
    """Sets the mark by a hash of the client's end; each backend has its weight of the space."""
    ranges = []
    total = 0
    for mark, backend in zip(marks, service.backends, strict=True):
        if backend.weight:
            first, total = total, total + backend.weight
            span = f"{first}-{total - 1}" if backend.weight > 1 else f"{first}"
            ranges.append(f"{span} : 0x{mark:08x}")
    return (
        f"meta mark set jhash {NFT_FAMILY[family]} saddr{{client}} mod {total}"
        f" seed 0x{seed:08x} map {{{{ {', '.join(ranges)} }}}} goto answered"
    )


def _postrouting(hairpin: tuple[str, ...]) -> Iterable[str]:
    yield f"ct mark & 0x{MASK:08x} != 0x{BASE:08x} return"
    yield "snat to ct mark map @sources"
    if hairpin:
        both = ", ".join(f'"{name}" . "{name}"' for name in hairpin)
        yield f"iifname . oifname {{ {both} }} masquerade"

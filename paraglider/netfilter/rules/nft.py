"""The nft table ``paraglider``, by which the kernel translates connections: its parts as text.

Lives here: the common parts of the tables of ``forward.offload`` and ``forward.static``: maps from
marks to backends, chains, counters, the matches of first packets, the choice by a hash.
Rules: pure. One table per family, ``ip paraglider`` and ``ip6 paraglider``, so that each is set up
and undone separately. The text is one transaction that leads to the same table from any previous
one: base chains are never removed, because the removal of one drops every packet that waits in a
queue of the namespace (Linux, net/netfilter/nf_queue.c: nf_queue_nf_hook_drop). Elements and rules
are replaced in the transaction, so a packet meets the old table or the new one, never a mix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from paraglider.config.model import Config, Service
from paraglider.config.types import ALL_PORTS, Exempt, PortRange
from paraglider.netfilter.rules import answers, conntrack
from paraglider.netfilter.rules.claims import Claims
from paraglider.netfilter.rules.marks import BASE, MASK, target_port
from paraglider.netfilter.rules.traffic import traffic_of

TABLE = "paraglider"
NFT_FAMILY = {4: "ip", 6: "ip6"}

_JHASH = 0xFFFFFFFF  # its seed has 32 bits

UNANSWERED = "unanswered"
"""The counter of first packets that no worker decided about."""
GONE = "gone"
"""The counter of first packets that a worker decided for a backend that is no longer there."""

FOLLOWING = (UNANSWERED, answers.ADOPTING)
"""The chains whose rules the daemon changes with the states of the backends."""

MAPS = {
    "backends": "{address} . inet_service",
    "addresses": "{address}",
    "sources": "{address}",
}
"""By mark: the backend with its port, the backend where the port is kept, the source address."""

# Just before all others: only the first translation of a connection has an effect.
NAT_CHAINS = {
    "prerouting": "type nat hook prerouting priority -105",
    "postrouting": "type nat hook postrouting priority 95",
}
"""The base chains of translation, with their hooks."""

# After the host's firewall: packets that it drops are not counted as carried.
CARRIED_CHAIN = {"forward": "type filter hook forward priority 10"}
"""The base chain of ``carried``, with its hook."""

CARRIED = ("requests", "replies")
"""What is counted of each backend by ``carried``: packets and bytes there and back. A map of that
name leads from its mark to its counter."""

COUNTED = (*CARRIED, answers.ADOPTED)
"""What is counted of a backend of ``forward: offload``: that, and connections that the kernel has
adopted.
"""

_ECHO = {4: "icmp type echo-request", 6: "icmpv6 type echo-request"}


@dataclass(frozen=True, slots=True)
class KernelTable:
    """The table of ``family``: its nft input, and the marks in its maps.

    ``datagrams`` are its UDP ports: VIP, first port, last port; ``claims`` maps a connection to its
    mark.
    """

    family: int
    text: str
    marks: tuple[int, ...]
    datagrams: tuple[tuple[str, int, int], ...] = ()
    claims: Claims | None = None

    @classmethod
    def of(
        cls,
        family: int,
        lines: Iterable[str],
        services: Sequence[Service],
        marks: dict[str, tuple[int, ...]],
    ) -> KernelTable:
        """The table of ``services``, given its ``lines`` and the ``marks`` of their backends."""
        every = sorted(mark for service in services for mark in marks[service.name])
        text = "".join(f"{line}\n" for line in lines)
        return cls(family, text, tuple(every), datagrams(services), Claims(services, marks))


def datagrams(services: Iterable[Service]) -> tuple[tuple[str, int, int], ...]:
    """The UDP ports of ``services``: VIP, first port, last port."""
    return tuple(
        (str(service.vip.ip), ports.first, ports.last)
        for service in services
        if "udp" in service.protocols
        for ports in service.ports
    )


def removal_text(family: int, table: str = TABLE) -> str:
    """The nft input that removes ``table``, which has to be there."""
    return f"delete table {NFT_FAMILY[family]} {table}\n"


def port_match(protocol: str, side: Literal["sport", "dport"], ports: tuple[PortRange, ...]) -> str:
    """The nft match of ``ports`` of a transport protocol at one end of a packet."""
    if ports == (ALL_PORTS,):
        return f"meta l4proto {protocol}"
    shown = [str(item) for item in ports]
    return f"{protocol} {side} {shown[0] if len(shown) == 1 else '{ ' + ', '.join(shown) + ' }'}"


def skeleton(
    family: int,
    counters: Iterable[str],
    maps: dict[str, str],
    bases: dict[str, str],
    chains: Iterable[str],
) -> Iterator[str]:
    """Add missing objects and empty all others; counters keep their values.

    ``maps`` are from marks to their values, ``bases`` base chains with their hooks.
    """
    place = f"{NFT_FAMILY[family]} {TABLE}"
    address = f"ipv{family}_addr"
    bases = {**conntrack.TRACKED_CHAIN, **bases}
    chains = (*chains, conntrack.INVALID, answers.STRAY)
    yield f"add table {place}"
    for counter in (conntrack.INVALID, answers.STRAY, *counters):
        yield f"add counter {place} {counter}"
    for name, value in maps.items():
        yield f"add map {place} {name} {{ type mark : {value.format(address=address)}; }}"
    for name, hook in bases.items():
        yield f"add chain {place} {name} {{ {hook}; policy accept; }}"
    for name in chains:
        yield f"add chain {place} {name}"
    for name in (*bases, *chains):
        yield f"flush chain {place} {name}"
    for name in maps:
        yield f"flush map {place} {name}"


def tracking(config: Config, family: int) -> Iterator[str]:
    """The conntrack rules and policies for the ``forward: offload`` services of ``family``."""
    name = NFT_FAMILY[family]
    place = f"{name} {TABLE}"
    traffic = traffic_of(config, family, lambda method: method.conntracked)
    exempt = exemptions(config, family)
    replied = conntrack.replied(config, family)
    yield from conntrack.objects(place, name, config.timeouts, replied)
    yield from conntrack.elements(place, traffic, replied)
    yield from answers.objects(place, name)
    yield from answers.elements(place, answers.stray_ends(config, family))
    yield from add_rules("tracked", (conntrack.tracked(),), family)
    yield from add_rules(conntrack.INVALID, conntrack.invalid(name, exempt), family)
    yield from add_rules(answers.STRAY, answers.stray(name, exempt), family)


def timed(config: Config, family: int) -> Iterator[str]:
    """The rules that set the timeouts of new connections of ``family``."""
    return conntrack.timed(NFT_FAMILY[family], config.timeouts, conntrack.replied(config, family))


def exemptions(config: Config, family: int) -> list[str]:
    """Rules by which all packets of ``family`` that are never balanced leave the chain."""
    ends = (end for end in config.network.exempt if end.address.version == family)
    return [rule for end in ends for rule in exempted(end, family)]


def exempted(end: Exempt, family: int) -> Iterator[str]:
    """Rules by which packets of ``end``, which are never balanced, leave the chain."""
    protocols = (end.protocol,) if end.protocol else ("tcp", "udp") if end.port else ("",)
    for side, port in (("daddr", "dport"), ("saddr", "sport")):
        for protocol in protocols:
            match = f"{NFT_FAMILY[family]} {side} {end.address}"
            if end.port:
                match += f" {protocol} {port} {end.port}"
            elif protocol:
                match += f" meta l4proto {protocol}"
            yield f"{match} return"


def elements(
    services: Iterable[Service], marks: dict[str, tuple[int, ...]], family: int
) -> Iterator[str]:
    """What fills ``MAPS``."""
    for service in services:
        for mark, backend in zip(marks[service.name], service.backends, strict=True):
            port = target_port(service, backend)
            name, end = ("backends", f" . {port}") if port else ("addresses", "")
            yield add_element(name, mark, f"{backend.address}{end}", family)
            if service.snat_address is not None:
                yield add_element("sources", mark, str(service.snat_address), family)


def add_element(name: str, mark: int, value: str, family: int) -> str:
    """The line that puts ``value`` into the map ``name`` under ``mark``."""
    return f"add element {NFT_FAMILY[family]} {TABLE} {name} {{ 0x{mark:08x} : {value} }}"


def counter(mark: int, what: str) -> str:
    """The name of the counter of ``what`` for the backend of ``mark``."""
    return f"{what}-{mark:08x}"


def counters_of(marks: Iterable[int], counted: Sequence[str]) -> Iterator[str]:
    """The names of all counters of what is ``counted`` of the backends of ``marks``."""
    return (counter(mark, what) for mark in marks for what in counted)


def counter_maps(counted: Iterable[str]) -> dict[str, str]:
    """The maps, beside ``MAPS``, from marks to the counters of what is ``counted``."""
    return dict.fromkeys(counted, "counter")


def counter_elements(marks: Iterable[int], counted: Sequence[str], family: int) -> Iterator[str]:
    """What fills ``counter_maps``."""
    for mark in marks:
        for what in counted:
            yield add_element(what, mark, f'"{counter(mark, what)}"', family)


def without_counters(family: int, marks: Iterable[int], counted: Sequence[str]) -> str:
    """The nft input, to follow that of a table, that removes the counters of ``marks`` with it."""
    place = f"{NFT_FAMILY[family]} {TABLE}"
    names = counters_of(marks, counted)
    # Added first, because nft cannot delete a missing object.
    return "".join(f"add counter {place} {n}\ndelete counter {place} {n}\n" for n in names)


def carried() -> Iterator[str]:
    """Count packets and bytes to a backend, and back from it, by its mark."""
    yield "ct direction original counter name ct mark map @requests return"
    yield "ct direction reply counter name ct mark map @replies return"


def add_rules(chain: str, rules: Iterable[str], family: int) -> Iterator[str]:
    """The lines that put ``rules`` into ``chain``, in their order."""
    return (f"add rule {NFT_FAMILY[family]} {TABLE} {chain} {rule}" for rule in rules)


def translation(mark: str) -> Iterator[str]:
    """The destination becomes the backend of ``mark``: an expression such as ``meta mark``."""
    yield f"meta l4proto {{ tcp, udp }} dnat to {mark} map @backends"
    yield f"dnat to {mark} map @addresses"


def first_packets(services: Iterable[Service], family: int) -> Iterator[tuple[Service, str, str]]:
    """Service, protocol (tcp, udp or icmp) and match of packets that begin a connection to each
    VIP.
    """
    # Some ports of a VIP may be one service's and all the others another's: the narrower first.
    for service in sorted(services, key=lambda service: service.all_ports):
        to_vip = f"{NFT_FAMILY[family]} daddr {service.vip.ip}"
        for protocol in service.protocols:
            match = f"{to_vip} {port_match(protocol, 'dport', service.ports)}"
            if protocol == "tcp":
                # As in a worker: any other segment goes to the local stack, which answers RST.
                match += " tcp flags & (fin | syn | rst | ack) == syn"
            yield service, protocol, match
        if service.protocol == "any":
            yield service, "icmp", f"{to_vip} {_ECHO[family]}"


def hash_key(service: Service, seed: int) -> int:
    """The seed of the kernel's hash for ``service``: its own if its strategy has one, else
    ``seed``.
    """
    return service.hash_seed if service.strategy_class.uses_seed else seed


def in_order(service: Service, shares: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """``shares``, which are in the order of the backends of ``service``, in that of the backends'
    addresses and ports: the choice does not depend on the order in the file.
    """
    found = zip(service.backends, shares, strict=True)
    ends = sorted(found, key=lambda one: (one[0].address.packed, target_port(service, one[0])))
    return [share for _, share in ends]


def by_hash(fields: str, seed: int, shares: Iterable[tuple[int, int]]) -> str:
    """A mark by the kernel's hash of ``fields``; ``shares`` are marks, each with its part."""
    ranges, total = spans(shares)
    return f"jhash {fields} mod {total} seed 0x{seed & _JHASH:08x} map {ranges}"


def spans(shares: Iterable[tuple[int, int]]) -> tuple[str, int]:
    """The map from numbers to marks that gives each its part, one after the other, and how many
    numbers there are; a part of 0 is left out.
    """
    ranges = []
    total = 0
    for mark, part in shares:
        if part:
            first, total = total, total + part
            ranges.append(f"{first}-{total - 1}" if part > 1 else f"{first}")
            ranges[-1] += f" : 0x{mark:08x}"
    return f"{{ {', '.join(ranges)} }}", total


def postrouting(hairpin: tuple[str, ...]) -> Iterator[str]:
    """The source address, if the service has one configured, or if a client in the backends'
    network connects to them.
    """
    yield f"ct mark & 0x{MASK:08x} != 0x{BASE:08x} return"
    yield "snat to ct mark map @sources"
    if hairpin:
        both = ", ".join(f'"{name}" . "{name}"' for name in hairpin)
        yield f"iifname . oifname {{ {both} }} masquerade"

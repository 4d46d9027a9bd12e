"""The endpoints of a configuration for the rules of one family, without duplicates.

Lives here: the collection of VIP and backend endpoints over services, and the port matches.
Rules: the ports of services that share a VIP or backend are merged, so that no packet meets the
same match twice. The order is that of the file, so that the text is stable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from paraglider.config.model import Config, Service
from paraglider.config.service import Method
from paraglider.config.types import ALL_PORTS, Exempt, IPAddress, PortRange

MULTIPORT_SLOTS = 15
"""Ports that one ``-m multiport`` takes, a range counting two (XT_MULTI_PORTS, xt_multiport.h)."""


@dataclass(frozen=True, slots=True)
class RuleEndpoint:
    """An address with its ports of one transport protocol."""

    address: IPAddress
    protocol: str
    ports: tuple[PortRange, ...]

    @property
    def all_ports(self) -> bool:
        """True when no port is excepted."""
        return self.ports == (ALL_PORTS,)


@dataclass(frozen=True, slots=True)
class RuleTraffic:
    """The balanced traffic of one family.

    ``vips`` and ``echo_vips``: where requests go, by port and for ICMP echo. ``replies`` and
    ``echo_replies``: where replies that come back through here are from. ``backends``: every
    backend; ``addresses``: every VIP; for both, ICMP errors may concern us.
    """

    services: tuple[Service, ...]
    vips: tuple[RuleEndpoint, ...]
    replies: tuple[RuleEndpoint, ...]
    addresses: tuple[IPAddress, ...]
    backends: tuple[IPAddress, ...]
    echo_vips: tuple[IPAddress, ...]
    echo_replies: tuple[IPAddress, ...]
    exempt: tuple[Exempt, ...]


def traffic_of(config: Config, family: int, chosen: Callable[[Method], bool]) -> RuleTraffic:
    """The traffic of the services of ``family`` (4 or 6) whose method is ``chosen``."""
    services = tuple(s for s in config.services if s.family == family and chosen(s.method))
    back = tuple(s for s in services if s.answers == "via")
    return RuleTraffic(
        services=services,
        vips=_united((s.vip.ip, p, s.ports) for s in services for p in s.protocols),
        replies=_united(
            (b.address, p, s.reply_ports(b)) for s in back for b in s.backends for p in s.protocols
        ),
        addresses=_once(s.vip.ip for s in services),
        backends=_once(b.address for s in services for b in s.backends),
        echo_vips=_once(s.vip.ip for s in services if s.protocol == "any"),
        echo_replies=_once(b.address for s in back if s.protocol == "any" for b in s.backends),
        exempt=tuple(e for e in config.network.exempt if e.address.version == family),
    )


def without(traffic: RuleTraffic, other: RuleTraffic) -> RuleTraffic:
    """``traffic`` without the VIPs and backends that are also in the other,
    for ICMP errors only.
    """
    return replace(
        traffic,
        addresses=tuple(a for a in traffic.addresses if a not in other.addresses),
        backends=tuple(a for a in traffic.backends if a not in other.backends),
    )


def port_matches(
    protocol: str, side: Literal["source", "destination"], ports: tuple[PortRange, ...]
) -> tuple[str, ...]:
    """The iptables matches, one a rule, that together select ``ports`` of ``protocol``."""
    if ports == (ALL_PORTS,):
        return (f"-p {protocol}",)
    if len(ports) == 1:
        option = "--sport" if side == "source" else "--dport"
        return (f"-p {protocol} -m {protocol} {option} {_port(ports[0])}",)
    option = "--sports" if side == "source" else "--dports"
    return tuple(
        f"-p {protocol} -m multiport {option} " + ",".join(_port(item) for item in chunk)
        for chunk in _chunks(ports)
    )


def united_ports(ports: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """The same ports as sorted ranges that neither overlap nor touch."""
    merged: list[PortRange] = []
    for item in sorted(ports):
        if merged and item.first <= merged[-1].last + 1:
            last = merged.pop()
            merged.append(PortRange(last.first, max(last.last, item.last)))
        else:
            merged.append(item)
    return tuple(merged)


def _united(
    parts: Iterable[tuple[IPAddress, str, tuple[PortRange, ...]]],
) -> tuple[RuleEndpoint, ...]:
    found: dict[tuple[IPAddress, str], list[PortRange]] = {}
    for address, protocol, ports in parts:
        found.setdefault((address, protocol), []).extend(ports)
    return tuple(
        RuleEndpoint(address, protocol, united_ports(ports))
        for (address, protocol), ports in found.items()
    )


def _once(addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    return tuple(dict.fromkeys(addresses))


def _port(item: PortRange) -> str:
    return str(item.first) if item.first == item.last else f"{item.first}:{item.last}"


def _chunks(ports: tuple[PortRange, ...]) -> list[list[PortRange]]:
    chunks: list[list[PortRange]] = [[]]
    free = MULTIPORT_SLOTS
    for item in ports:
        cost = 1 if item.first == item.last else 2
        if cost > free:
            chunks.append([])
            free = MULTIPORT_SLOTS
        chunks[-1].append(item)
        free -= cost
    return chunks

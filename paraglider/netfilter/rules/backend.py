"""The needs of a backend's host for its service (``Need``), and their nft or tc text.

Lives here: the table that rewrites answers under ``return: direct``, and Convey's tc form of it. A
service's need is given by its method (``ForwardMethod.backend_need``).

    postrouting  answers of the backend's address and port leave as the VIP and its port

Rules: the rewriting is stateless, so it survives restarts and has no table to fill: every host that
is neither in the backends' network nor exempt counts as a client of the balancer. It runs after
conntrack and NAT, which see the backend's address. If a service has ports in the host's local port
range, conntrack's direction is matched too, because otherwise the host's connections would be
rewritten. There is one table per service and family, so that each is set up and undone separately.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from paraglider.config.model import BackendConfig, Network, Service
from paraglider.config.network import gateways_of
from paraglider.config.types import Exempt, IPAddress, IPInterface, IPNetwork, PortRange
from paraglider.netfilter.rules.nft import NFT_FAMILY, port_match

Need = Literal["loopback", "decapsulate", "route", "rewrite", "nothing"]
"""The VIP on loopback, that and the end of a tunnel, a route through the balancer, answers
rewritten, or nothing."""

ROUTE: Final[tuple[Need, str]] = (
    "route",
    (
        "packets come from the client's own address: answers have to pass the balancer, which gives"
        " them the VIP as their source"
    ),
)
"""The need of a backend that gets packets with the client's address, and why."""

CHAIN = "answers"
# Behind all source NAT (100): a container's answer has the backend's address by then.
_PRIORITY = 150
_ECHO_REPLY = {4: "icmp type echo-reply", 6: "icmpv6 type echo-reply"}
_PROTOCOL_NUMBER = {"tcp": 6, "udp": 17}


@dataclass(frozen=True, slots=True)
class Spared:
    """The destinations whose answers are not rewritten: networks, and exempt endpoints."""

    networks: tuple[IPNetwork, ...]
    exempt: tuple[Exempt, ...]


def spared(network: Network, service: Service, own: IPInterface | None) -> Spared:
    """The hosts that connect to the backends of ``service`` directly, and the balancer itself.

    These are the networks of the gateways or, if none of the family is configured, the network of
    the backend's address on this host (``own``). If the VIP is in that network too, it may contain
    clients: then only the gateways' addresses are returned.
    """
    links = gateways_of(network, service.family)
    if not links and own is not None and service.vip.ip not in own.network:
        links = [own]
    found = (
        link.network if service.vip.ip not in link.network else ipaddress.ip_network(link.ip)
        for link in links
    )
    exempt = tuple(e for e in network.exempt if e.address.version == service.family)
    return Spared(tuple(dict.fromkeys(found)), exempt)


def tracked(service: Service, local_ports: PortRange) -> bool:
    """Whether the host's own connections may start from a port of ``service``.

    ``local_ports`` is the range from which it takes them.
    """
    return any(ports.overlaps(local_ports) for ports in service.ports)


def table_name(service: Service) -> str:
    """The table of ``service``, as nft has it within the family."""
    return f"paraglider-backend-{service.name}"


def answers_table(
    service: Service, backends: Iterable[BackendConfig], sparing: Spared, local_ports: PortRange
) -> str:
    """The nft input by which answers of ``backends``, which are this host, leave as the VIP.

    It leads to the same table from any previous one.
    """
    place = f"{NFT_FAMILY[service.family]} {table_name(service)}"
    rules = [
        *_sparing(service.family, sparing),
        *_rewriting(service, backends, tracked(service, local_ports)),
    ]
    hook = f"type filter hook postrouting priority {_PRIORITY}; policy accept;"
    lines = [
        f"add table {place}",
        f"add chain {place} {CHAIN} {{ {hook} }}",
        f"flush chain {place} {CHAIN}",
        *(f"add rule {place} {CHAIN} {rule}" for rule in rules),
    ]
    return "".join(f"{line}\n" for line in lines)


def tc_unfit(service: Service, local_ports: PortRange) -> str | None:
    """Why tc's nat cannot replace the table for ``service``; None if it can."""
    if service.family == 6:
        return "tc's nat action rewrites IPv4 alone"
    if any(backend.port not in (None, service.single_port) for backend in service.backends):
        return "tc's nat action maps no ports"
    if any(len(ports) > 1 for ports in service.ports):
        return "tc's u32 matches single ports, not ranges"
    if tracked(service, local_ports):
        return "tc cannot tell an answer from a connection of the host's own"
    return None


def tc_script(
    service: Service, backends: Iterable[BackendConfig], sparing: Spared, interface: str
) -> str:
    """Convey's form of the same, for a ``service`` that is not ``tc_unfit``.

    ``interface`` is the one by which answers leave. Convey excepts only the balancer's address;
    this excepts all of ``spared``. The filters are attached to ``clsact``, so that the queueing
    discipline of the interface stays.
    """
    base = "tc filter add dev $DEV egress protocol ip"
    lines = [
        f"DEV={interface}",
        "tc qdisc add dev $DEV clsact",
        *(f"{base} prio 1 u32 match ip dst {end} action ok" for end in sparing.networks),
    ]
    for end in sparing.exempt:
        for protocol in (end.protocol,) if end.protocol else ("tcp", "udp") if end.port else ("",):
            match = f"match ip dst {end.address}/32"
            if protocol:
                match += f" match ip protocol {_PROTOCOL_NUMBER[protocol]} 0xff"
            if end.port:
                match += f" match ip dport {end.port} 0xffff"
            lines.append(f"{base} prio 1 u32 {match} action ok")
    for address in dict.fromkeys(backend.address for backend in backends):
        for protocol in service.protocols:
            for ports in service.ports:
                match = (
                    f"match ip src {address}/32 match ip protocol {_PROTOCOL_NUMBER[protocol]} 0xff"
                    f" match ip sport {ports.first} 0xffff"
                )
                nat = f"action nat egress {address}/32 {service.vip.ip}"
                lines.append(f"{base} prio 10 u32 {match} {nat}")
    return "".join(f"{line}\n" for line in lines)


def _sparing(family: int, sparing: Spared) -> Iterator[str]:
    to = f"{NFT_FAMILY[family]} daddr"
    # Packets of the host to itself, and packets that are no answer to a client of the balancer.
    yield 'oifname "lo" return'
    for network in sparing.networks:
        yield f"{to} {_short(network)} return"
    for end in sparing.exempt:
        match = f"meta l4proto {end.protocol} " if end.protocol else ""
        if end.port:
            transport = end.protocol or "meta l4proto { tcp, udp } th"
            match = f"{transport} dport {end.port} "
        yield f"{to} {end.address} {match}return"


def _rewriting(
    service: Service, backends: Iterable[BackendConfig], by_direction: bool
) -> Iterator[str]:
    ip = NFT_FAMILY[service.family]
    answer = "ct direction reply " if by_direction else ""
    for backend in backends:
        end = f"{ip} saddr {backend.address}"
        vip = f"{ip} saddr set {service.vip.ip}"
        port = ""
        if backend.port is not None and backend.port != service.single_port:
            port = f"{{}} sport set {service.single_port} "
        for protocol in service.protocols:
            match = port_match(protocol, "sport", service.reply_ports(backend))
            yield f"{end} {match} {answer}{port.format(protocol)}{vip}"
        if service.protocol == "any":
            yield f"{end} {_ECHO_REPLY[service.family]} {vip}"


def _short(network: IPNetwork) -> IPAddress | IPNetwork:
    """A single address as nft lists it."""
    return network.network_address if network.num_addresses == 1 else network

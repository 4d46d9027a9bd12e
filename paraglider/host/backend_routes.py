"""What this host's routes say of the backends: whether packets reach them, and answers pass here.

Lives here: ``route_warnings``.
Rules: only reads, and needs no privileges. One line a service and fault, whatever number of
backends it has. Backends in a network of ``private.gateway`` are neighbours, also before
`paraglider.config` has added the address. A route that depends on where a packet comes from
(``Routing.is_by_policy``) is not judged: the kernel is asked for that of a packet of this host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from paraglider.config.model import Config
from paraglider.config.networks import Networks
from paraglider.config.service import Service
from paraglider.config.types import IPAddress
from paraglider.forward import registry
from paraglider.host.changes.base import Host
from paraglider.host.netlink import Netlink, RouteTowards
from paraglider.host.plan_links import on_link_backends

#: backends that a line names
_NAMED: Final = 3


def route_warnings(config: Config, families: frozenset[int], host: Host) -> Iterator[str]:
    """A warning for each service of ``families`` (4, 6) and each of: backends without a route;
    backends whose answers must pass here, behind a router; such backends in the clients' network;
    and a VIP with all protocols that is the only address of this host.
    """
    chosen = config.for_families(families)
    neighbours = {
        address for family in families for address in on_link_backends(chosen, family, host)
    }
    routes: dict[IPAddress, RouteTowards | None] = {}
    used = {service.family for service in chosen.services}
    judged = {family for family in used if not host.routing.is_by_policy(family)}
    own = _own(host.netlink)
    for service in chosen.services:
        addresses = list(dict.fromkeys(backend.address for backend in service.backends))
        for address in addresses:
            known = address in neighbours or address in routes
            if not known and address.version in judged:
                routes[address] = host.netlink.route_towards(address)
        others = [address for address in addresses if address not in own]
        yield from _of_service(service, others, routes)
        of_family = {address for address in own if address.version == service.family}
        if service.protocol == "any" and of_family == {service.vip.ip}:
            yield (
                f"`{service.name}`: {service.vip.ip} is this host's only IPv{service.family}"
                " address, and all that comes to it is balanced, ssh too; give the service an"
                " address of its own"
            )


def _of_service(
    service: Service,
    addresses: list[IPAddress],
    routes: dict[IPAddress, RouteTowards | None],
) -> Iterator[str]:
    missing = [each for each in addresses if each in routes and routes[each] is None]
    if missing:
        yield (
            f"`{service.name}`: this host has no route to {_named(missing)}, so no packet reaches"
            " it; add one (ip route add)"
        )
    if registry.of(service).backend_need(service)[0] != "route":
        return
    behind: dict[IPAddress, list[IPAddress]] = {}
    for each in addresses:
        if (route := routes.get(each)) is not None and route.via is not None:
            behind.setdefault(route.via, []).append(each)
    for router, found in behind.items():
        yield (
            f"`{service.name}`: {_named(found)} is behind the router {router}, and its answers must"
            " pass this host; have that router send them here, or use `forward: offload` with"
            " `snat`, `tunnel` or `proxy`"
        )
    network = service.vip.network
    near = [each for each in addresses if each in Networks([network]) and network.num_addresses > 1]
    if near and not service.method.conntracked:
        yield (
            f"`{service.name}`: {_named(near)} is in the VIP's network {network}, and answers"
            " clients of that network past this host, so their connections do not open; use"
            " `forward: offload`, `dsr` or `proxy`, or put the backends into another network"
        )


def _own(netlink: Netlink) -> frozenset[IPAddress]:
    """The addresses of this host."""
    return frozenset(
        address.ip for addresses in netlink.own_addresses().values() for address in addresses
    )


def _named(addresses: list[IPAddress]) -> str:
    """The first of ``addresses``, which are a subject in the singular."""
    if len(addresses) == 1:
        return f"the backend {addresses[0]}"
    shown = ", ".join(map(str, addresses[:_NAMED]))
    more = "" if len(addresses) <= _NAMED else ", …"
    return f"each of {len(addresses)} backends ({shown}{more})"

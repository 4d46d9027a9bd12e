"""Checks across several fields or several services: errors, each with its remedy.

Lives here: ``check`` and ``checking`` (all errors of a configuration that the model has accepted),
``check_interfaces`` (against the names of a host's interfaces).
Rules: a problem has the path that it points at, and in ``needs`` every other path that it depends
on, so that ``load`` can drop it if one of those is itself in error. Pure: the host is an argument.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

from paraglider.config.check_announce import check_announce
from paraglider.config.check_health import check_health
from paraglider.config.check_routes import check_routes
from paraglider.config.check_shared import check_shared
from paraglider.config.check_strategy import check_strategy
from paraglider.config.deciding import kernel_decides
from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Config, Service
from paraglider.config.own_address import OwnAddress
from paraglider.config.service import METHODS, Method
from paraglider.config.steps import Steps, completed
from paraglider.config.types import ALL_PORTS, IPAddress, PortRange, is_endpoint
from paraglider.config.wording import shown

#: keys of a service that only some forwarding methods take (``Method.options``)
OPTIONS = ("snat", "proxy_protocol", "carrier", "decide", "encapsulation", "adopt", "route")

#: services that are checked in one step
STEP: Final = 100


def check(config: Config) -> list[Problem]:
    """Every error in ``config``; empty if there is none."""
    return completed(checking(config))


def checking(config: Config) -> Steps[list[Problem]]:
    """As ``check``, in steps of some services."""
    problems = [*_process(config), *_network(config)]
    for index, service in enumerate(config.services):
        if index % STEP == STEP - 1:
            yield
        path: Path = ("services", index)
        problems += [*_addresses(path, service), *_backends(path, service)]
        problems += [*_options(path, service), *_exempt(path, service, config)]
        problems += service.method.check(path, service, config.network)
        problems += [*check_strategy(path, service), *check_health(path, service)]
    yield
    problems += [*_names(config), *_claims(config), *check_shared(config)]
    problems += [*check_routes(config), *check_announce(config)]
    return problems


def check_interfaces(config: Config, existing: set[str]) -> list[Problem]:
    """The interfaces of `network` that are not among ``existing``, the names on the host."""
    named = {"public": config.network.public, "private": config.network.private}
    there = ", ".join(sorted(existing - {"lo"})) or "none but lo"
    return [
        Problem(
            ("network", side, "interface"),
            f"there is no interface `{section.interface}` on this host",
            f"the interfaces here are: {there}",
        )
        for side, section in named.items()
        if section is not None and section.interface not in existing
    ]


def _process(config: Config) -> Iterator[Problem]:
    first, last = config.workers.first_core, config.workers.last_core
    if first is not None and last is not None and first > last:
        path: Path = ("workers", "first_core")
        what = f"`first_core` {first} is above `last_core` {last}"
        remedy = f"write first_core: {last}, last_core: {first}"
        yield Problem(path, what, remedy, needs=(("workers", "last_core"),))
    if config.stats is not None and not is_endpoint(config.stats.bind):
        what = f"`bind`: {shown(config.stats.bind)} is no ADDRESS:PORT"
        remedy = 'write one such as "127.0.0.1:9777" or "[::1]:9777"'
        yield Problem(("stats", "bind"), what, remedy)
    for index, peer in enumerate(config.stats.peers if config.stats is not None else ()):
        if not peer.startswith("http://") or not is_endpoint(peer.removeprefix("http://")):
            what = f"peer {shown(peer)} is no http://ADDRESS:PORT"
            remedy = 'write one such as "http://10.0.0.2:9777": names are not looked up'
            yield Problem(("stats", "peers", index), what, remedy)
    broadcast = config.failover.broadcast
    if broadcast is not None and broadcast.version != 4:
        what = f"`broadcast`: {broadcast} is IPv6, which has no broadcast"
        remedy = "write the IPv4 broadcast address of the backends' network, or leave it out"
        yield Problem(("failover", "broadcast"), what, remedy)


def _network(config: Config) -> Iterator[Problem]:
    gateways = config.network.private.gateway if config.network.private is not None else ()
    taken: dict[IPAddress, tuple[str, Path]] = {}
    for index, service in enumerate(config.services):
        path: Path = ("services", index)
        taken.setdefault(service.vip.ip, (f"the VIP of `{service.name}`", (*path, "vip")))
        for number, backend in enumerate(service.backends):
            place = (*path, "backends", number, "address")
            taken.setdefault(backend.address, (f"a backend of `{service.name}`", place))
    for index, gateway in enumerate(gateways):
        place = ("network", "private", "gateway", index)
        if not isinstance(gateway, OwnAddress) and gateway.ip in taken:
            whose, needed = taken[gateway.ip]
            what = f"gateway {gateway.ip} is also {whose}"
            remedy = "give the balancer an address of its own on the private side"
            yield Problem(place, what, remedy, needs=(needed,))
        if gateway in gateways[:index]:
            yield Problem(place, f"gateway {gateway} is listed twice", "keep one of the two")


def _addresses(path: Path, service: Service) -> Iterator[Problem]:
    vip, needs = service.vip, ((*path, "vip"),)
    forward: tuple[Path, ...] = ((*path, "forward"),)
    ours = service.method.loopback
    bad = _unusable(vip.ip, ours)
    if bad:
        yield Problem(
            (*path, "vip"),
            f"VIP {vip.ip} is {bad}",
            _instead(vip.ip, service, "a unicast address"),
            needs=forward,
        )
    elif vip.version == 4 and vip.network.prefixlen < 31 and vip.ip in _ends(vip.network):
        what = f"VIP {vip.ip} is the network or broadcast address of {vip.network}"
        yield Problem((*path, "vip"), what, "write a host's address, or another prefix")
    for index, backend in enumerate(service.backends):
        place = (*path, "backends", index, "address")
        bad = _unusable(backend.address, ours)
        if backend.address.version != vip.version:
            what = f"backend {backend.address} is IPv{backend.address.version}"
            what += f", the VIP {vip.ip} is IPv{vip.version}"
            remedy = f"write an IPv{vip.version} backend; each family needs a service of its own"
            yield Problem(place, what, remedy, needs=needs)
        elif bad:
            what = f"backend {backend.address} is {bad}"
            remedy = _instead(backend.address, service, "the address of a server")
            yield Problem(place, what, remedy, needs=forward)
        elif backend.address == vip.ip and not (ours and _elsewhere(backend.port, service)):
            what = f"backend {backend.address} is the VIP itself"
            remedy = "write the server's own address"
            if ours:
                remedy += ", or a `port` that the service does not have"
            ports = ((*path, "ports"), (*path, "backends", index, "port"))
            yield Problem(place, what, remedy, needs=(*needs, *forward, *ports))
    snat = service.snat
    if isinstance(snat, OwnAddress) and snat.network is not None:
        if snat.network.version != vip.version:
            what = f"`snat`: the network {snat.network} is IPv{snat.network.version}"
            what += f", the VIP is IPv{vip.version}"
            remedy = f"write an IPv{vip.version} network, or leave it out"
            yield Problem((*path, "snat", "network"), what, remedy, needs=needs)
    elif snat is not None and not isinstance(snat, OwnAddress) and snat.version != vip.version:
        what = f"`snat` {snat} is IPv{snat.version}, the VIP is IPv{vip.version}"
        remedy = f"write an IPv{vip.version} address"
        yield Problem((*path, "snat"), what, remedy, needs=needs)


def _elsewhere(port: int | None, service: Service) -> bool:
    """Whether a connection to ``port`` of the VIP does not reach ``service`` again."""
    return port is not None and all(port not in span for span in service.ports)


def _instead(address: IPAddress, service: Service, usual: str) -> str:
    """The remedy for an unusable ``address``."""
    if address.is_loopback and service.protocol == "tcp" and not service.all_ports:
        takes = _methods(method for method in METHODS.values() if method.loopback)
        return f"write {usual}, or use {takes}, which takes loopback too"
    return f"write {usual}"


def _unusable(address: IPAddress, here: bool = False) -> str:
    """Why ``address`` cannot be in a packet of a flow; empty if it can. With ``here`` connections
    end on this host and are not forwarded, so loopback is valid.
    """
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback and not here:
        return "a loopback address"
    if address.is_link_local and address.version == 6:
        return "a link-local address"
    if str(address) == "255.255.255.255":
        return "the broadcast address"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return f"an IPv4 address in IPv6 form ({address.ipv4_mapped})"
    return ""


def _ends(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[IPAddress, ...]:
    return (network.network_address, network.broadcast_address)


def _backends(path: Path, service: Service) -> Iterator[Problem]:
    seen: dict[tuple[IPAddress, int | None], Path] = {}
    for index, backend in enumerate(service.backends):
        item: Path = (*path, "backends", index)
        place: Path = (*item, "address")
        port = backend.port if backend.port is not None else service.single_port
        first = seen.setdefault((backend.address, port), item)
        if first is not item:
            where = f"`backends[{first[-1]}]`"
            at = f" port {port}" if port is not None else ""
            what = f"backend {backend.address}{at} appears twice (first as {where})"
            remedy = "keep one, and give it a higher weight if it is to get more"
            needs = [(*item, "port"), (*first, "address"), (*first, "port")]
            # Written once as the service's own port and once as its default: the same backend.
            if backend.port != service.backends[int(first[-1])].port:
                needs.append((*path, "ports"))
            yield Problem(place, what, remedy, needs=tuple(needs))
        if backend.port is None:
            continue
        place = (*item, "port")
        if service.protocol == "any":
            what = "`port` with `protocol: any`, which keeps the port of the client's packet"
            remedy = "leave `port` out, or make one service for tcp and one for udp"
            yield Problem(place, what, remedy, at="key", needs=((*path, "protocol"),))
        elif service.single_port is None:
            many = "all" if service.all_ports else "several"
            what = f"`port` maps to one port, but the service has {many} ports"
            remedy = "leave `port` out, or give the service a single port"
            yield Problem(place, what, remedy, at="key", needs=((*path, "ports"),))
    if service.source is None and not any(backend.weight for backend in service.backends):
        remedy = "give a backend a weight of 1 or more"
        yield Problem((*path, "backends"), "every backend has weight 0", remedy, at="key")


def _options(path: Path, service: Service) -> Iterator[Problem]:
    """Problems of keys that the method of ``service`` does not take."""
    forward, needs = service.forward, ((*path, "forward"),)
    for key in OPTIONS:
        given = key in service.model_fields_set and getattr(service, key) is not None
        if given and key not in service.method.options:
            what = f"`{key}` has no meaning with `forward: {forward}`"
            takers = _methods(method for method in METHODS.values() if key in method.options)
            remedy = f"leave `{key}` out, or use {takers}"
            yield Problem((*path, key), what, remedy, at="key", needs=needs)
    if service.decide == "hash" and "decide" in service.method.options:
        yield from _hash(path, service)
    if service.return_ == "direct" and "return" not in service.method.options:
        what = f"`return: direct` does not go with `forward: {forward}`"
        yield Problem((*path, "return"), what, "write `return: via`, or leave it out", needs=needs)


def _hash(path: Path, service: Service) -> Iterator[Problem]:
    """Problems of `decide: hash`, by which a packet goes where its own bytes lead."""
    place, forward = (*path, "decide"), service.forward
    if service.method.owns_vip:
        what = f"`decide: hash` with `forward: {forward}`, whose replies need a flow"
        takers = _methods(
            each for each in METHODS.values() if "decide" in each.options and not each.owns_vip
        )
        remedy = f"write `decide: auto`, or use {takers}"
        yield Problem(place, what, remedy, needs=((*path, "forward"),))
    if service.strategy_class.kernel_pick not in ("client", "flow"):
        what = f"`decide: hash` with `strategy: {service.strategy}`, which is no hash"
        remedy = "use `strategy: maglev` or `source`, or leave `decide` out"
        yield Problem(place, what, remedy, needs=((*path, "strategy"),))
    if service.adopt == "never":
        what = "`decide: hash` with `adopt: never`: without flows, any packet goes where it leads"
        remedy = "leave `adopt` out, or `decide`"
        yield Problem(place, what, remedy, needs=((*path, "adopt"),))
    if service.affinity == "client":
        what = "`decide: hash` with `affinity: client`, which keeps a list of clients"
        remedy = "use `strategy: source` without `affinity`, or leave `decide` out"
        yield Problem(place, what, remedy, needs=((*path, "affinity"),))


def _exempt(path: Path, service: Service, config: Config) -> Iterator[Problem]:
    """Problems of exempt endpoints, which the program that decides does not know."""
    family = {each.address.version for each in config.network.exempt}
    if service.decide != "python" and kernel_decides(service) and service.vip.version in family:
        what = f"`decide: {service.decide}` with `exempt` endpoints, which the kernel does not know"
        remedy = "leave `decide` out, or `exempt`"
        yield Problem((*path, "decide"), what, remedy, needs=(("network", "exempt"),))


def _methods(chosen: Iterable[Method]) -> str:
    """The ``chosen`` methods, as in the file."""
    return " or ".join(f"`forward: {method.name}`" for method in chosen)


def _names(config: Config) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, service in enumerate(config.services):
        earlier = first.setdefault(service.name, index)
        if earlier != index:
            route = config.services[earlier].route
            where = f"`services[{earlier}]`" if route is None else f"a route of `{route.service}`"
            what = f"two services are named `{service.name}` (first as {where})"
            needs: tuple[Path, ...] = (("services", earlier, "name"),)
            place: Path = ("services", index, "name")
            yield Problem(place, what, "give each service its own name", needs=needs)


def _claims(config: Config) -> Iterator[Problem]:
    """Two services that claim the same VIP, protocol and port, or its ICMP echo.

    Some ports within another service's all ports are no conflict: they belong to the narrower
    service.
    """
    claims: dict[tuple[IPAddress, str, bool], list[tuple[PortRange, int]]] = {}
    for index, service in enumerate(config.services):
        if service.route is not None:
            continue  # its connections are those of another service
        for protocol in service.protocols:
            key = (service.vip.ip, protocol, service.all_ports)
            claims.setdefault(key, []).extend((ports, index) for ports in service.ports)
    clashes: dict[tuple[int, int], list[str]] = {}
    for (_, protocol, _), ranges in claims.items():
        widest = None  # the range so far with the highest end
        for ports, index in sorted(ranges):
            if widest is not None and ports.overlaps(widest[0]):
                pair = (min(index, widest[1]), max(index, widest[1]))
                clashes.setdefault(pair, []).append(f"{protocol} {_where(ports, widest[0])}")
            if widest is None or ports.last > widest[0].last:
                widest = (ports, index)
    echo: dict[IPAddress, int] = {}
    for index, service in enumerate(config.services):
        if service.protocol == "any" and (first := echo.setdefault(service.vip.ip, index)) != index:
            clashes.setdefault((first, index), []).append("ICMP echo")
    for (earlier, later), which in clashes.items():
        owner, second = config.services[earlier], config.services[later]
        what = f"`{owner.name}` has {', '.join(dict.fromkeys(which))} of {second.vip.ip} already"
        remedy = "give each service its own VIP or ports, or put the backends into one service"
        keys = ("vip", "protocol", "ports")
        needs = tuple(("services", index, key) for index in (earlier, later) for key in keys)
        present = "ports" if "ports" in second.model_fields_set else "vip"
        yield Problem(("services", later, present), what, remedy, needs=needs)


def _where(left: PortRange, right: PortRange) -> str:
    shared = PortRange(max(left.first, right.first), min(left.last, right.last))
    return "on all ports" if shared == ALL_PORTS else f"port {shared}"

"""The part of a plan that uses netlink and /proc only and runs no program.

Lives here: ``link_steps`` (sysctls, addresses, neighbours, routing), ``needs_kernel``,
``on_link_backends``.
Rules: planning only reads. Each forwarding method defines its needs (``forward.registry``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from paraglider.config.model import Config
from paraglider.config.networks import Networks
from paraglider.config.types import IPAddress, IPInterface
from paraglider.forward import registry
from paraglider.host.changes.base import Host
from paraglider.host.changes.links import AddressChange, NeighbourChange
from paraglider.host.changes.routes import RouteChange, entry_change
from paraglider.host.changes.sysctls import FORWARDING, ForwardingChange, SysctlChange
from paraglider.host.step import Records, Step, sysctl_step
from paraglider.host.sysctl import conf

#: the interface of announced VIPs: all balancers may have them there, none answers ARP for them
LOOPBACK: Final = "lo"


def link_steps(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    """The steps for sysctls, addresses, neighbours and routing of ``family``. Uses netlink and
    /proc only and runs no program.
    """
    if needs_kernel(config, family):
        yield from _sysctls(config, family, host, records)
    yield from _addresses(config, family, host, records)
    yield from _neighbours(config, family, host, records)
    yield from _routing(config, family, host, records)


def needs_kernel(config: Config, family: int) -> bool:
    """Whether the kernel passes packets on for ``family``; connections of a proxy end here."""
    return any(s.method.queued for s in config.services if s.family == family)


def on_link_backends(config: Config, family: int, host: Host) -> Iterator[IPAddress]:
    """The backends of ``family`` that are neighbours on the private interface, each once."""
    private = config.network.private
    if private is None:
        return
    links = [*host.netlink.addresses(private.interface), *private.gateways]
    networks = Networks(link.network for link in links)
    backends = (b.address for s in config.services if s.family == family for b in s.backends)
    for address in dict.fromkeys(backends):
        if address in networks:
            yield address


def _sysctls(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    interfaces = host.sysctl.interfaces(family)
    switching = host.sysctl.read(FORWARDING[family]) == "0"
    if family == 6:
        # With forwarding on, accept_ra=1 means 0 and the routes from router advertisements go:
        # Linux, Documentation/networking/ip-sysctl.rst, accept_ra.
        for interface in interfaces:
            key = conf(6, interface, "accept_ra")
            held = SysctlChange(6, key, "", "").identity in records
            if held or (switching and host.sysctl.read(key) == "1" and interface != "lo"):
                yield from sysctl_step(6, key, "2", host, records)
    old = records.get(ForwardingChange(family, {}).identity)
    if old is not None and not switching:  # most often; the other parameters are not read
        yield Step("keep", old, old)
    else:
        new = ForwardingChange.of(family, host)
        yield Step("apply", new, old or new) if switching else Step("keep", new)
    sides = (config.network.public, config.network.private)
    for interface in dict.fromkeys(side.interface for side in sides if side is not None):
        key = conf(family, interface, "forwarding")
        # `all` turns it on for every interface; an interface may be off even if `all` is on.
        if SysctlChange(family, key, "", "").identity in records or not switching:
            yield from sysctl_step(family, key, "1", host, records)
    yield from _of_methods(config, family, host, records)
    if family == min((s.family for s in config.services if s.counted), default=None):
        # Without it, a connection that begins while nobody listens to the events has no destroy
        # event.
        yield from sysctl_step(family, "net/netfilter/nf_conntrack_events", "1", host, records)
    if family == 4:
        # An interface sends redirects if it or `all` is on; a redirect would tell a backend on the
        # client's own link the direct route, which bypasses the balancer.
        for interface in ("all", *interfaces):
            key = conf(4, interface, "send_redirects")
            yield from sysctl_step(4, key, "0", host, records, optional=True)


def _of_methods(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    """The sysctls that the forwarding methods need."""
    for method in registry.methods():
        for need in method.host_needs(config, family).sysctls:
            needless = need.unless is not None and host.sysctl.read(need.unless) == need.value
            if not needless or SysctlChange(family, need.key, "", "").identity in records:
                yield from sysctl_step(
                    family, need.key, need.value, host, records, optional=need.optional
                )


def _addresses(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    wanted: dict[tuple[str, IPAddress], IPInterface] = {}
    network = config.network
    vips: set[tuple[str, IPAddress]] = set()
    if network.public is not None:
        announced = frozenset(config.announced)
        for service in config.services:
            # Addresses of loopback are there already.
            owned = service.method.owns_vip and not service.vip.ip.is_loopback
            if service.family == family and owned:
                place, vip = network.public.interface, service.vip
                if vip.ip in announced:  # routed here, so that no link needs to know it
                    place, vip = LOOPBACK, ipaddress.ip_interface(vip.ip)
                wanted.setdefault((place, vip.ip), vip)
        vips.update(wanted)
    if network.private is not None:
        for gateway in network.private.added:
            if gateway.version == family:
                wanted.setdefault((network.private.interface, gateway.ip), gateway)
    interfaces = dict.fromkeys(interface for interface, _ in wanted)
    for interface in interfaces if family == 6 else ():
        # Otherwise they are removed when a link goes down (Linux, addrconf_ifdown).
        yield from sysctl_step(6, conf(6, interface, "keep_addr_on_down"), "1", host, records)
    held = {interface: host.netlink.addresses(interface) for interface in interfaces}
    # Those of the host itself, which its own connections are to begin from.
    own = {
        interface: [
            address
            for address in addresses
            if (interface, address.ip) not in wanted
            and _address_identity(interface, address) not in records
        ]
        for interface, addresses in held.items()
    }
    networks = {interface: Networks(a.network for a in found) for interface, found in own.items()}
    if family == 4:
        for interface, ip in vips:
            # Of a network within one of the host's own a VIP would be the first address.
            address = wanted[interface, ip]
            same = any(other.network == address.network for other in own[interface])
            if not same and ip in networks[interface]:
                wanted[interface, ip] = ipaddress.ip_interface(ip)
    # An address that an earlier set-up gave another prefix is about to be taken back.
    present = {
        (interface, address.ip)
        for interface, addresses in held.items()
        for address in addresses
        if wanted.get((interface, address.ip)) == address
        or _address_identity(interface, address) not in records
    }
    ahead = {
        interface: _ahead(addresses, own[interface]) if family == 4 else frozenset()
        for interface, addresses in held.items()
    }
    for (interface, ip), address in wanted.items():
        deprecated = family == 6 and ((interface, ip) in vips or ip in networks[interface])
        change = AddressChange(family, interface, str(address), deprecated)
        old = records.get(change.identity)
        there = (interface, ip) in present
        if there and isinstance(old, AddressChange) and old.deprecated != deprecated:
            yield Step("apply", replace(change, previous=old.deprecated), change)
        elif there and old is not None and address in ahead[interface]:
            yield Step("apply", replace(change, ahead=True), old)
        else:
            yield Step("keep" if there else "apply", change, old if there else change)


def _ahead(addresses: Iterable[IPInterface], own: Iterable[IPInterface]) -> frozenset[IPInterface]:
    """Those of an interface's IPv4 ``addresses`` that precede an ``own`` one of the same network:
    the first address of a network is its primary one, and the source of outgoing connections.
    """
    waiting: dict[object, list[IPInterface]] = {address.network: [] for address in own}
    ours = set(own)
    found: set[IPInterface] = set()
    for address in addresses:
        before = waiting.get(address.network)
        if before is not None and address in ours:
            found.update(before)
            before.clear()
        elif before is not None:
            before.append(address)
    return frozenset(found)


def _address_identity(interface: str, address: IPInterface) -> tuple[str, ...]:
    return AddressChange(address.version, interface, str(address)).identity


def _neighbours(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    private = config.network.private
    if private is None:
        return
    known = host.netlink.neighbours(private.interface, family)
    for address in on_link_backends(config, family, host):
        found = known.get(address)
        keep = found.hardware if found is not None and found.resolved else None
        change = NeighbourChange(family, private.interface, str(address), keep)
        old = records.get(change.identity)
        if found is not None and (found.fixed or found.managed or (old and found.resolved)):
            yield Step("keep", old or change, old)
        else:
            yield Step("apply", change, old or change)


def _routing(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    """The routing entries that the forwarding methods need."""
    wanted = [
        entry_change(family, entry)
        for method in registry.methods()
        for entry in method.host_needs(config, family).routing
    ]
    if not wanted:
        return
    interfaces = {change.interface for change in wanted if isinstance(change, RouteChange)}
    held = host.routing.held(family, sorted(interfaces))
    for change in wanted:
        old = records.get(change.identity)
        if change.value in held:
            yield Step("keep", change, old)
        else:
            yield Step("apply", change, old or change)

"""Plans the changes of a backend's host for a service, and their undo.

Lives here: ``find_backends`` (the backends of a service that this host is), ``make_plan``,
``require`` (the needed programs), ``undo_plan``, and ``notes`` (what the operator must fix).
Rules: planning only reads. Order: the record of the service's needs, then the sysctls, so that the
host does not answer ARP for the VIP when it is added, then the rest. A change that two services
need stays until both are undone; records of an earlier run keep the original values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from paraglider.config.model import BackendConfig, Config, Service
from paraglider.config.network import gateways_of
from paraglider.config.types import IPAddress, IPInterface, PortRange
from paraglider.errors import OperatorError
from paraglider.forward import registry
from paraglider.host import step
from paraglider.host.changes.base import Change, Host
from paraglider.host.changes.default_route import (
    DefaultRouteChange,
    best_route,
    can_be_put_back,
    gateway_of,
)
from paraglider.host.changes.links import AddressChange
from paraglider.host.changes.needs import ServedChange
from paraglider.host.changes.replaced_table import AnswersChange
from paraglider.host.changes.sysctls import SysctlChange
from paraglider.host.step import Records, Step, sysctl_step
from paraglider.host.sysctl import conf
from paraglider.host.tunnel_plan import Decapsulation, bpf_step, choose, kernel_steps
from paraglider.netfilter.programs import find_program
from paraglider.netfilter.rules import backend as text

_LOCAL_PORTS = "net/ipv4/ip_local_port_range"  # IPv6 takes its ports from it too
_SILENT = ("1", "2", "8")  # arp_ignore: interfaces do not answer for an address of lo


@dataclass(frozen=True, slots=True)
class Role:
    """The role of this host: the backends of ``service`` that it is.

    ``interface`` and ``own`` are the interface and address of these backends, None if it has none.
    """

    service: Service
    backends: tuple[BackendConfig, ...]
    interface: str | None
    own: IPInterface | None


def find_backends(service: Service, host: Host, named: IPAddress | None) -> Role:
    """The backends of ``service`` that are this host, by its addresses or as ``named``.

    Raises ``OperatorError`` if there are none.
    """
    held = {
        address.ip: (interface, address)
        for interface in sorted(host.netlink.interfaces())
        for address in host.netlink.addresses(interface)
    }
    known = ", ".join(dict.fromkeys(str(backend.address) for backend in service.backends))
    if service.source is not None:
        if named is None:
            raise OperatorError(
                f"the file does not list the backends of `{service.name}`",
                "say which one this host is: --backend ADDRESS",
            )
        found: tuple[BackendConfig, ...] = (BackendConfig(address=named),)
    elif named is not None:
        found = tuple(b for b in service.backends if b.address == named)
        if not found:
            raise OperatorError(
                f"`{service.name}` has no backend {named}", f"its backends are: {known}"
            )
    else:
        found = tuple(b for b in service.backends if b.address in held)
        if not found:
            raise OperatorError(
                f"this host is no backend of `{service.name}`: it has none of {known}",
                "run this on a backend, or say which one it is: --backend ADDRESS",
            )
    if found[0].address.version != service.family:
        raise OperatorError(
            f"{found[0].address} is no IPv{service.family} address, as `{service.name}` needs",
            "name the backend by its address of that family",
        )
    interface, own = held.get(found[0].address, (None, None))
    return Role(service, found, interface, own)


def make_plan(
    config: Config,
    role: Role,
    host: Host,
    earlier: Iterable[Change],
    decapsulation: Decapsulation = "auto",
) -> list[Step]:
    """The steps that set this host up for ``role``; empty if it needs nothing. ``decapsulation`` is
    how the outer headers of tunnels are removed.

    Changes of an earlier run that are no longer needed are reverted first. Raises ``OperatorError``
    when the host or the file do not allow it, ``PlatformError`` when the kernel does not.
    """
    records = {change.identity: change for change in earlier}
    service = role.service
    needed = registry.of(service).backend_need(service)[0]
    wanted: list[Step] = []
    if needed == "loopback":
        wanted = [*_loopback(service, host, records), *_reverse_path(role, host, records)]
    elif needed == "decapsulate":
        wanted = [*_loopback(service, host, records), *_end(role, decapsulation, host, records)]
    elif needed == "rewrite":
        wanted = [*_answers(config, role, host, records), *_reverse_path(role, host, records)]
    elif needed == "route":
        wanted = [*_route(config, role, host, records)]
    needs = [list(step.change.identity) for step in wanted]
    backends = list(dict.fromkeys(str(backend.address) for backend in role.backends))
    note = ServedChange(service.family, service.name, backends, needs)
    stale = [
        change
        for change in _needed_by(service.name, records)
        if list(change.identity) not in needs and change.identity != note.identity
    ]
    steps = step.undo_plan(stale)
    if wanted:
        steps.append(Step("keep" if records.get(note.identity) == note else "apply", note, note))
    elif note.identity in records:
        steps += step.undo_plan([records[note.identity]])
    return [*steps, *wanted]


def require(steps: Sequence[Step], host: Host) -> None:
    """Raises ``OperatorError`` when a program is missing that ``steps`` need, ``PlatformError``
    where a parameter cannot be written.
    """
    step.refuse_read_only(steps, host)
    if any(step.action == "apply" and isinstance(step.change, AnswersChange) for step in steps):
        find_program("nft")


def undo_plan(service: str, earlier: Iterable[Change]) -> list[Step]:
    """The steps that undo the set-up of ``service``; changes that another service needs stay."""
    return step.undo_plan(_needed_by(service, {change.identity: change for change in earlier}))


def served(earlier: Iterable[Change]) -> list[str]:
    """The names of the services that were set up here."""
    return [change.service for change in earlier if isinstance(change, ServedChange)]


def local_ports(host: Host) -> PortRange:
    """The range of local ports of this host's connections."""
    first, last = (host.sysctl.read(_LOCAL_PORTS) or "32768 60999").split()
    return PortRange(int(first), int(last))


def notes(
    config: Config, role: Role, host: Host, decapsulation: Decapsulation = "auto"
) -> list[str]:
    """Notes about problems that the operator must fix, and about what the kernel does not have."""
    service = role.service
    found: list[str] = []
    needed = registry.of(service).backend_need(service)[0]
    if needed not in ("rewrite", "loopback", "decapsulate"):
        return found
    if needed == "decapsulate" and decapsulation == "auto":
        why = choose(service, decapsulation, host)[1]
        if why:
            found.append(f"BPF decapsulates, since the kernel has no device that does ({why})")
    gateways = _gateways(config, service)
    through = [gateway_of(route) for route in host.netlink.default_routes(service.family)]
    if any(str(gateway.ip) in through for gateway in gateways):
        found.append(
            "the default route goes through the balancer, which drops answers that have the VIP as"
            " their source: give this host another way to the clients"
        )
    if needed == "rewrite":
        sparing = text.spared(config.network, service, role.own)
        if not sparing.networks and not sparing.exempt:
            found.append(
                "nothing tells the balancer itself and its monitoring from its clients: list their"
                " addresses under `network.exempt`, or the balancer's under"
                " `network.private.gateway`"
            )
    return found


def _needed_by(service: str, records: Records) -> list[Change]:
    """The stored changes that only ``service`` needs, with its record, in the stored order."""
    notes_ = [change for change in records.values() if isinstance(change, ServedChange)]
    of_others = {tuple(i) for note in notes_ if note.service != service for i in note.needs}
    mine = {tuple(i) for note in notes_ if note.service == service for i in note.needs}
    return [
        change
        for identity, change in records.items()
        if (isinstance(change, ServedChange) and change.service == service)
        or (identity in mine and identity not in of_others)
    ]


def _loopback(service: Service, host: Host, records: Records) -> Iterator[Step]:
    vip = service.vip.ip
    for interface in sorted(host.netlink.interfaces() - {"lo"}):
        if any(address.ip == vip for address in host.netlink.addresses(interface)):
            raise OperatorError(
                f"the VIP {vip} is on {interface} of this host, which tells its neighbours so",
                f"remove it there: ip address del {vip} dev {interface}; it belongs on lo",
            )
    if service.family == 4:
        for interface in dict.fromkeys(("all", "lo", *host.sysctl.interfaces(4))):
            key = conf(4, interface, "arp_ignore")
            now = host.sysctl.read(key)
            # The greater of `all` and the interface counts; 3 would answer for an address of lo.
            if interface in ("all", "lo"):
                yield from sysctl_step(4, key, now if now in _SILENT else "1", host, records)
            elif now not in ("0", *_SILENT) or _recorded(key, records):
                yield from sysctl_step(4, key, "1", host, records)
        for interface in ("all", "lo"):
            yield from sysctl_step(4, conf(4, interface, "arp_announce"), "2", host, records)
    address = f"{vip}/{vip.max_prefixlen}"
    change = AddressChange(service.family, "lo", address, deprecated=service.family == 6)
    there = any(held.ip == vip for held in host.netlink.addresses("lo"))
    old = records.get(change.identity)
    yield Step("keep" if there else "apply", change, old if there else change)


def _end(role: Role, decapsulation: Decapsulation, host: Host, records: Records) -> Iterator[Step]:
    """Packets arrive in an outer header, which is taken off before the host's stack."""
    service, address = role.service, role.backends[0].address
    if role.interface is None:
        if decapsulation == "kernel":  # commands for another host
            yield from kernel_steps(service, address, host, records)
            return
        raise OperatorError(
            f"this host does not have the address {address}, so it is not known at which interface"
            " packets arrive",
            "run this on the backend itself, or with --decapsulation kernel",
        )
    if choose(service, decapsulation, host)[0] == "kernel":
        yield from kernel_steps(service, address, host, records)
        return
    # The packet inside continues at the interface of the outer one.
    yield from _reverse_path(role, host, records)
    yield bpf_step(service, address, role.interface, host, records)


def _reverse_path(role: Role, host: Host, records: Records) -> Iterator[Step]:
    """Clients' packets arrive on an interface without a route back: a strict check drops them."""
    if role.service.family == 6 or role.interface is None:
        return
    key = conf(4, role.interface, "rp_filter")
    strict = max(host.sysctl.read(k) or "0" for k in (conf(4, "all", "rp_filter"), key)) == "1"
    if strict or _recorded(key, records):
        yield from sysctl_step(4, key, "2", host, records)


def _answers(config: Config, role: Role, host: Host, records: Records) -> Iterator[Step]:
    service = role.service
    sparing = text.spared(config.network, service, role.own)
    content = text.answers_table(service, role.backends, sparing, local_ports(host))
    change = AnswersChange(service.family, text.table_name(service), content)
    yield step.table_step(change, host, records)


def _route(config: Config, role: Role, host: Host, records: Records) -> Iterator[Step]:
    service, family = role.service, role.service.family
    address = role.backends[0].address
    near = [gateway for gateway in _gateways(config, service) if address in gateway.network]
    if not near:
        private = config.network.private
        if private is not None and not private.complete:
            raise OperatorError(
                "`network.private.gateway` names an interface of the balancer, and its address"
                " there is not known on this host",
                "write the address into this copy of the file; or lead the answers to the balancer"
                " by your routers",
            )
        raise OperatorError(
            f"`network.private.gateway` has no IPv{family} address in the network of {address}",
            "add the balancer's address there; or lead the answers to the balancer by your routers",
        )
    present = host.netlink.default_routes(family)
    old = next(
        (c for c in records.values() if isinstance(c, DefaultRouteChange) and c.family == family),
        None,
    )
    # As it was before an earlier run.
    others = [route for route in present if old is None or not _shows(route, old.route)]
    if old is not None and old.replaced is not None:
        others.append(old.replaced)
    best = best_route(family, present)
    if best is not None and gateway_of(best) in [str(gateway.ip) for gateway in near]:
        if old is not None and _shows(best, old.route):
            yield Step("keep", old, old)
        else:
            yield Step("keep", DefaultRouteChange(family, best))
        return
    if role.interface is None:
        raise OperatorError(
            f"this host does not have the address {address}, so it is not known which interface"
            " the route is to take",
            "run this on the backend itself",
        )
    change = DefaultRouteChange.through(family, str(near[0].ip), role.interface, others)
    if change.replaced is not None and not can_be_put_back(change.replaced):
        raise OperatorError(
            f"the default route here is one that cannot be put back as it is: {change.replaced}",
            f"give it a metric above 1, or make the route yourself: ip route {change.route}",
        )
    yield Step("apply", change, change)


def _gateways(config: Config, service: Service) -> list[IPInterface]:
    return gateways_of(config.network, service.family)


def _shows(shown: str, route: str) -> bool:
    """Whether ip(8) shows ``route`` as ``shown``, possibly with attributes
    that the kernel added.
    """
    return shown.split()[: len(route.split())] == route.split()


def _recorded(key: str, records: Records) -> bool:
    return SysctlChange(4, key, "", "").identity in records

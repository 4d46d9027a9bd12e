"""The changes that a configuration asks for, compared with the host and with an earlier set-up.

Lives here: ``make_plan`` (what to do), ``undo_plan`` (what to take back), as lists of steps.
Rules: planning only reads. Order: first the tables and the rules, so that no packet for a VIP meets
the local stack, then the sysctls, the addresses, the neighbours, the ways of dsr. An earlier
set-up's records keep the values that were there before the first one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from paraglider.config.model import Config
from paraglider.config.networks import Networks
from paraglider.config.types import IPAddress, IPInterface
from paraglider.errors import PlatformError
from paraglider.forward.dsr.leases import TABLE as LEASES
from paraglider.forward.dsr.leases import lease_table
from paraglider.forward.nat.long import TABLE as LONG_TABLE
from paraglider.forward.nat.long import long_table
from paraglider.forward.offload.table import offload_table
from paraglider.forward.openings import TABLE as OPENINGS_TABLE
from paraglider.forward.openings import openings_table
from paraglider.forward.queue_rules import queue_rules
from paraglider.forward.static.rules import served, static_rules, static_table
from paraglider.host.changes.base import Action, Change, Host
from paraglider.host.changes.directory import DirectoryChange
from paraglider.host.changes.legacy import LegacyChange
from paraglider.host.changes.links import AddressChange, NeighbourChange
from paraglider.host.changes.replaced_table import (
    LeasesChange,
    LongChange,
    OpeningsChange,
    WholeTable,
)
from paraglider.host.changes.routes import RouteChange
from paraglider.host.changes.ruleset import RulesChange
from paraglider.host.changes.sysctls import FORWARDING, ForwardingChange, SysctlChange
from paraglider.host.changes.table import TableChange, set_up
from paraglider.host.checks import DEFAULT_CHROOT
from paraglider.host.dsr_routes import ways
from paraglider.host.sysctl import conf, dotted, neigh
from paraglider.netfilter.rules.ruleset import RuleSet

Records = dict[tuple[str, ...], Change]
"""What an earlier set-up changed, by identity."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do with a change: make it, take it back, or leave it as it is.

    ``record`` is what the state holds of it afterwards, None for nothing; it differs from the
    change where an earlier set-up knows what was there before.
    """

    action: Action
    change: Change
    record: Change | None = None

    def describe(self) -> str:
        """What the step does, on one line."""
        return self.change.describe(self.action)

    def script(self, host: Host) -> str:
        """The commands that the step amounts to; none where nothing is to be done."""
        if self.action == "keep":
            return ""
        if self.action == "revert":
            return self.change.revert_script(host)
        return self.change.script(host)

    def do(self, host: Host) -> None:
        """Carry the step out; raises ``PlatformError``."""
        if self.action == "apply":
            self.change.apply(host)
        elif self.action == "revert":
            self.change.revert(host)

    def roll_back(self, host: Host) -> None:
        """The opposite of ``do``, also after half of it; raises ``PlatformError``."""
        if self.action == "apply":
            self.change.revert(host)
        elif self.action == "revert":
            self.change.apply(host)


def make_plan(
    config: Config,
    families: frozenset[int],
    cores: tuple[int, ...],
    seed: int,
    host: Host,
    earlier: Iterable[Change],
) -> list[Step]:
    """The steps that bring the host to ``config`` for ``families``, given the ``earlier`` changes.

    Without ``cores`` there is no daemon: the kernel is to balance alone, and ``config`` is as
    ``forward.static.checks.kernel_only`` gives it. What an earlier set-up did for these families
    and is no longer wanted is taken back first.
    """
    records = {change.identity: change for change in earlier}
    scope = config.for_families(families)
    wanted: list[Step] = [*_directory(config)] if cores else []
    for family in sorted(families):
        if not any(service.family == family for service in scope.services):
            continue
        wanted += filter_steps(scope, family, cores, seed, host, records)
        wanted += link_steps(scope, family, host, records)
    names = {step.change.identity for step in wanted}
    stale = [c for c in records.values() if c.family in families and c.identity not in names]
    return [*undo_plan(stale), *wanted]


def needs_kernel(config: Config, family: int) -> bool:
    """Whether the kernel passes packets on for ``family``: a proxy's connections end here."""
    forwards = {service.forward for service in config.services if service.family == family}
    return bool(forwards - {"proxy"})


def refuse_read_only(steps: Iterable[Step], host: Host) -> None:
    """Raise ``PlatformError`` with every parameter that ``steps`` are to set and that cannot be
    written here, as in a container whose /proc/sys is read-only.
    """
    wanted: dict[str, str] = {}
    for step in steps:
        if step.action == "apply" and isinstance(step.change, SysctlChange | ForwardingChange):
            wanted[step.change.key] = step.change.after
    fixed = [key for key in wanted if not host.sysctl.writable(key)]
    if fixed:
        shown = ", ".join(f"{dotted(k)} is {host.sysctl.read(k)}, not {wanted[k]}" for k in fixed)
        options = " ".join(f"--sysctl {dotted(key)}={wanted[key]}" for key in fixed)
        raise PlatformError(
            "kernel parameters are not as balancing needs them, and /proc/sys is read-only:"
            f" {shown}",
            f"set them from outside, in a container by: docker run {options}",
        )


def undo_plan(changes: Iterable[Change]) -> list[Step]:
    """The steps that take ``changes`` back, the last one first."""
    return [Step("revert", change) for change in reversed(list(changes))]


def on_link_backends(config: Config, family: int, host: Host) -> Iterator[IPAddress]:
    """The backends of ``family`` that are neighbours on the private interface, each once."""
    private = config.network.private
    if private is None:
        return
    links = [*host.netlink.addresses(private.interface), *private.gateway]
    networks = Networks(link.network for link in links)
    backends = (b.address for s in config.services if s.family == family for b in s.backends)
    for address in dict.fromkeys(backends):
        if address in networks:
            yield address


def _directory(config: Config) -> Iterator[Step]:
    if config.chroot == DEFAULT_CHROOT and not Path(DEFAULT_CHROOT).exists():
        yield Step("apply", DirectoryChange(config.services[0].family, DEFAULT_CHROOT))


def hairpin_interfaces(config: Config, family: int, host: Host) -> tuple[str, ...]:
    """The interfaces towards the backends of the ``forward: offload`` services of ``family``.

    A backend on the private link is found there also before the interface has its address.
    """
    on_link = set(on_link_backends(config, family, host))
    private = config.network.private
    services = [s for s in config.services if s.family == family and s.forward == "offload"]
    found: set[str] = set()
    for address in dict.fromkeys(b.address for s in services for b in s.backends):
        if address in on_link and private is not None:
            found.add(private.interface)
        elif (interface := host.netlink.interface_towards(address)) is not None:
            found.add(interface)
    return tuple(sorted(found - {"lo"}))


def filter_steps(
    config: Config, family: int, cores: tuple[int, ...], seed: int, host: Host, records: Records
) -> Iterator[Step]:
    """The steps that bring the packet filter of ``family`` to ``config``: table, then rules.

    A packet that the rules have decided about must find the table. ``cores`` as in ``make_plan``.
    """
    yield from _table(config, family, cores, seed, host, records)
    yield from _leases(config, family, host, records)
    if cores:
        yield from _long(config, family, host, records)
        yield from _openings(config, family, len(cores), host, records)
    yield from _rules(config, family, cores, seed, host, records)
    yield from legacy_steps(config, family, cores, host, records)


def link_steps(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    """The steps that bring all the rest of ``family`` to ``config``, which asks the kernel alone
    and runs no program: sysctls, addresses, neighbours, the ways of dsr.
    """
    if needs_kernel(config, family):
        yield from _sysctls(config, family, host, records)
    yield from _addresses(config, family, host, records)
    yield from _neighbours(config, family, host, records)
    yield from _ways(config, family, host, records)


def _table(
    config: Config, family: int, cores: tuple[int, ...], seed: int, host: Host, records: Records
) -> Iterator[Step]:
    make = offload_table if cores else static_table
    table = make(config, family, hairpin_interfaces(config, family, host), seed)
    if table is None:
        return
    datagrams: list[list[str | int]] = [list(claim) for claim in table.datagrams]
    change = TableChange(
        family,
        table.text,
        list(table.marks),
        datagrams,
        served=[] if cores else served(config, family),
        claims=table.claims,
    )
    old = records.get(change.identity)
    if not isinstance(old, TableChange):
        yield Step("apply", change, change)
        return
    there = host.nft.held(family)
    if old.text == change.text and old.saved == there:
        yield Step("keep", old, old)
    else:
        held = bool(there) and set_up(there) == set_up(old.saved)
        change = replace(change, previous=(old.text, old.marks), held=held)
        yield Step("apply", change, change)


def _leases(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    text = lease_table(config, family)
    if text is not None:
        yield table_step(LeasesChange(family, LEASES, text), host, records)


def _long(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    text = long_table(config, family)
    if text is not None:
        yield table_step(LongChange(family, LONG_TABLE, text), host, records)


def _openings(
    config: Config, family: int, workers: int, host: Host, records: Records
) -> Iterator[Step]:
    text = openings_table(config, family, workers)
    if text is not None:
        yield table_step(OpeningsChange(family, OPENINGS_TABLE, text), host, records)


def table_step(change: WholeTable, host: Host, records: Records) -> Step:
    """The step that leads to ``change``: none to speak of where all is so already."""
    old = records.get(change.identity)
    if not isinstance(old, WholeTable):
        return Step("apply", change, change)
    if old.text == change.text and old.saved == host.nft.held(change.family, change.table):
        return Step("keep", old, old)
    change = replace(change, previous=old.text)
    return Step("apply", change, change)


def _rules(
    config: Config, family: int, cores: tuple[int, ...], seed: int, host: Host, records: Records
) -> Iterator[Step]:
    rules = queue_rules(config, family, cores, seed) if cores else static_rules(config, family)
    if rules is None:
        return
    change = RulesChange(family, rules.text(), None)
    old = records.get(change.identity)
    if not isinstance(old, RulesChange):
        change = replace(change, before=host.netfilter.tables(family))
        yield Step("apply", change, change)
    elif old.text == change.text and old.saved == host.netfilter.ours(family):
        yield Step("keep", old, old)
    else:
        change = replace(change, before=old.before, previous=old.text)
        yield Step("apply", change, change)


def legacy_steps(
    config: Config, family: int, cores: tuple[int, ...], host: Host, records: Records
) -> Iterator[Step]:
    """The step that lets balanced packets pass iptables-legacy's filter too, where there is one
    beside iptables-nft. ``cores`` as in ``make_plan``.
    """
    if not host.legacy.filters(family) or host.netfilter.tables(family) is None:
        return
    rules = queue_rules(config, family, cores, 0) if cores else static_rules(config, family)
    if rules is None:
        return
    tables = tuple(table for table in rules.tables if table.name == "filter")
    change = LegacyChange(family, RuleSet(family, tables).text())
    old = records.get(change.identity)
    if not isinstance(old, LegacyChange):
        yield Step("apply", change, change)
    elif old.text == change.text and old.saved == host.legacy.ours(family):
        yield Step("keep", old, old)
    else:
        change = replace(change, previous=old.text)
        yield Step("apply", change, change)


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
    forwarding = ForwardingChange.of(family, host)
    old = records.get(forwarding.identity)
    if switching:
        yield Step("apply", forwarding, old or forwarding)
    elif old is not None:
        yield Step("keep", old, old)
    else:
        yield Step("keep", forwarding)
    sides = (config.network.public, config.network.private)
    for interface in dict.fromkeys(side.interface for side in sides if side is not None):
        key = conf(family, interface, "forwarding")
        # The switch turns it on everywhere; where that is on already, an interface may be off.
        if SysctlChange(family, key, "", "").identity in records or not switching:
            yield from sysctl_step(family, key, "1", host, records)
    yield from _answering(config, family, host, records)
    if family == min((s.family for s in config.services if s.counted), default=None):
        # Else a connection that begins while nobody listens to the events has no last one either.
        yield from sysctl_step(family, "net/netfilter/nf_conntrack_events", "1", host, records)
    if family == 4:
        # An interface sends redirects when it or `all` says so; without, a backend on the
        # client's own link would be told of the shorter way, past the balancer.
        # Where it cannot be written our rules drop them (rules.filter: no_redirects).
        for interface in ("all", *interfaces):
            key = conf(4, interface, "send_redirects")
            yield from sysctl_step(4, key, "0", host, records, optional=True)


def _answering(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    """What makes the public interface answer for a VIP of dsr, and at once."""
    public = config.network.public
    if public is None or not any(
        s.forward == "dsr" and s.family == family for s in config.services
    ):
        return
    key = conf(6, public.interface, "proxy_ndp")
    # `all` is enough (Linux, net/ipv6/ndisc.c: ndisc_recv_ns).
    everywhere = family == 6 and host.sysctl.read(conf(6, "all", "proxy_ndp")) == "1"
    if family == 6 and (not everywhere or SysctlChange(6, key, "", "").identity in records):
        yield from sysctl_step(6, key, "1", host, records)
    # Else an answer for another is held back for up to 0.8 s (Linux, neighbour.c: pneigh_enqueue).
    key = neigh(family, public.interface, "proxy_delay")
    yield from sysctl_step(family, key, "0", host, records, optional=True)


def sysctl_step(
    family: int, key: str, value: str, host: Host, records: Records, *, optional: bool = False
) -> Iterator[Step]:
    """The step that gives ``key`` its ``value``; none where the kernel has no such parameter, nor,
    where it is ``optional``, where it cannot be written.
    """
    now = host.sysctl.read(key)
    if now is None or (optional and now != value and not host.sysctl.writable(key)):
        return
    change = SysctlChange(family, key, now, value)
    old = records.get(change.identity)
    if now == value:
        yield Step("keep", old or change, old)
        return
    # What neither we nor an earlier run's beginning left there is somebody's since.
    ours = isinstance(old, SysctlChange) and now in (old.before, old.after)
    before = old.before if ours and isinstance(old, SysctlChange) else now
    yield Step("apply", change, replace(change, before=before))


def _addresses(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    wanted: dict[tuple[str, IPAddress], IPInterface] = {}
    network = config.network
    vips: set[tuple[str, IPAddress]] = set()
    if network.public is not None:
        for service in config.services:
            # Under dsr the VIP is the backends' address and none of the balancer's; loopback's are
            # there already.
            vip = service.vip.ip
            if service.family == family and service.forward != "dsr" and not vip.is_loopback:
                wanted.setdefault((network.public.interface, service.vip.ip), service.vip)
        vips.update(wanted)
    if network.private is not None:
        for gateway in network.private.gateway:
            if gateway.version == family:
                wanted.setdefault((network.private.interface, gateway.ip), gateway)
    interfaces = dict.fromkeys(interface for interface, _ in wanted)
    for interface in interfaces if family == 6 else ():
        # Else a link that goes down takes them along, for good (Linux, addrconf_ifdown).
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
    """Those of an interface's IPv4 ``addresses`` that stand before an ``own`` one of the same
    network: the first of a network is its primary address, and the source of what begins here.
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


def _ways(config: Config, family: int, host: Host, records: Records) -> Iterator[Step]:
    wanted = list(ways(config, family))
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

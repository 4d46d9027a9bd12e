"""A host in memory for the tests of ``paraglider.host``: it behaves like a host towards the set-up
and needs no root.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.types import IPAddress, IPInterface
from paraglider.errors import PlatformError
from paraglider.forward.host_needs import PolicyRule, ProxyEntry, Route, RoutingEntry
from paraglider.host import bpffs
from paraglider.host.carrier_links import detach_all
from paraglider.host.changes.base import Host
from paraglider.host.changes.default_route import metric
from paraglider.host.decapsulation import Decapsulation, TunnelEnd
from paraglider.host.netlink import Neighbour, Netlink, RouteTowards
from paraglider.host.routing import Routing
from paraglider.host.sysctl import Sysctl, conf
from paraglider.host.tunnel_devices import TunnelDevice, TunnelDevices, TunnelPort
from paraglider.lab.namespace import Namespace
from paraglider.netfilter.conntrack import Conntrack, Entry
from paraglider.netfilter.iptables import Iptables, LegacyIptables, Tables
from paraglider.netfilter.nft import Nft
from paraglider.netfilter.rules.nft import NFT_FAMILY, TABLE
from paraglider.netfilter.rules.saved import our_part, removal_text


class AirNetfilter(Iptables):
    """Interprets iptables-restore input, enough of it for ours; prints it as iptables-save."""

    def __init__(self) -> None:
        self.chains: dict[int, dict[str, dict[str, list[str]]]] = {4: {}, 6: {}}
        self.runs: list[str] = []
        self.refuse = ""

    def require(self, family: int) -> None:
        """Every program is there."""

    def rehearse(self, family: int, text: str) -> None:
        """Refuses like ``restore``, and changes nothing."""
        if self.refuse == "rehearse":
            raise PlatformError("no NFQUEUE here")

    def saved(self, family: int) -> str:
        """The chains as iptables-save prints them."""
        lines = []
        for table, chains in self.chains[family].items():
            lines.append(f"*{table}")
            lines += (f":{chain} {'-' if 'PARA' in chain else 'ACCEPT'} [0:0]" for chain in chains)
            lines += (f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules)
            lines.append("COMMIT")
        return "".join(f"{line}\n" for line in lines)

    def ours(self, family: int) -> str:
        """As the real one."""
        return our_part(self.saved(family))

    def restore(self, family: int, text: str) -> None:
        """Apply the input; fails half-way if told to refuse."""
        self.runs.append(text)
        lines = text.splitlines()
        if self.refuse == "restore":
            lines = lines[: len(lines) // 2]
        chains: dict[str, list[str]] = {}
        for line in lines:
            option, _, rest = line.partition(" ")
            name, _, rule = rest.partition(" ")
            if line.startswith("*"):
                chains = self.chains[family].setdefault(line[1:], {})
            elif line.startswith(":"):
                chains[option[1:]] = []
            elif option == "-I":
                chains.setdefault(name, []).insert(0, rule.removeprefix("1 "))
            elif option == "-A":
                chains[name].append(rule)
            elif option == "-D":
                chains[name].remove(rule)
            elif option == "-F":
                chains[name].clear()
            elif option == "-X":
                del chains[name]
        if self.refuse == "restore":
            self.refuse = ""
            raise PlatformError("the rules were refused")

    def restore_command(self, family: int) -> list[str]:
        """A name for the command."""
        return [f"restore{family}"]

    def remove_ours(self, family: int) -> None:
        """As the real one."""
        if text := removal_text(self.saved(family)):
            self.restore(family, text)

    def tables(self, family: int) -> Tables | None:
        """The tables and chains."""
        return {table: list(chains) for table, chains in self.chains[family].items()}

    def unused_text(self, family: int, before: Tables | None) -> str:
        """The tables that were not there."""
        return "".join(f"delete {t}\n" for t in self.chains[family] if t not in (before or {}))

    def remove_unused(self, family: int, before: Tables | None) -> None:
        """Remove the tables that were not there."""
        for table in set(self.chains[family]) - set(before or {}):
            assert not any(self.chains[family].pop(table).values())


class AirLegacy(AirNetfilter, LegacyIptables):
    """The same for iptables-legacy, which few hosts use."""

    def __init__(self) -> None:
        super().__init__()
        self.used = False

    def filters(self, family: int) -> bool:
        """As set by the test."""
        return self.used


class AirNetlink(Netlink):
    """Addresses and neighbours in dictionaries."""

    def __init__(self) -> None:
        self.held: dict[str, list[IPInterface]] = {"lo": [], "eth0": [], "eth1": []}
        self.deprecated: set[tuple[str, IPInterface]] = set()
        self.routes: dict[int, list[str]] = {4: [], 6: []}
        self.entries: dict[tuple[str, IPAddress], Neighbour] = {}
        self.refuse: str | None = None
        self.deaf: set[str] = set()
        self.towards: dict[str, RouteTowards | None] = {}

    def interfaces(self) -> frozenset[str]:
        """The names."""
        return frozenset(self.held)

    def addresses(self, interface: str) -> tuple[IPInterface, ...]:
        """In the order in which they were added."""
        return tuple(self.held.get(interface, ()))

    def add_address(
        self, interface: str, address: IPInterface, *, deprecated: bool = False
    ) -> None:
        """Fails for the address set by the test."""
        if str(address) == self.refuse:
            raise PlatformError(f"cannot add {address}")
        if address not in self.held[interface]:
            self.held[interface].append(address)
            self.set_deprecated(interface, address, deprecated)

    def set_deprecated(self, interface: str, address: IPInterface, deprecated: bool) -> None:
        """Remembers those that are."""
        (self.deprecated.add if deprecated else self.deprecated.discard)((interface, address))

    def remove_address(self, interface: str, address: IPInterface, *, keep: bool = False) -> None:
        """A missing address is no error; no other address is removed."""
        self.deprecated.discard((interface, address))
        if address in self.held.get(interface, []):
            self.held[interface].remove(address)

    def default_routes(self, family: int) -> tuple[str, ...]:
        """As ip(8) prints them."""
        return tuple(self.routes[family])

    def replace_route(self, family: int, route: str) -> None:
        """Replaces a route of the same metric."""
        if route == self.refuse:
            raise PlatformError(f"cannot add {route}")
        kept = [old for old in self.routes[family] if metric(family, old) != metric(family, route)]
        self.routes[family] = [*kept, route]

    def remove_route(self, family: int, route: str) -> None:
        """A missing route is no error."""
        self.routes[family] = [old for old in self.routes[family] if old != route]

    def route_towards(self, address: IPAddress) -> RouteTowards | None:
        """As in ``towards``, by text; everything else is behind eth0."""
        return self.towards.get(str(address), RouteTowards("eth0"))

    def own_addresses(self) -> dict[str, tuple[IPInterface, ...]]:
        """All."""
        return {name: tuple(addresses) for name, addresses in self.held.items()}

    def neighbour(self, interface: str, address: IPAddress) -> Neighbour | None:
        """The entry."""
        return self.entries.get((interface, address))

    def neighbours(self, interface: str, family: int) -> dict[IPAddress, Neighbour]:
        """All entries."""
        return {
            address: entry
            for (at, address), entry in self.entries.items()
            if at == interface and address.version == family
        }

    def manage_neighbour(self, interface: str, address: IPAddress) -> None:
        """All neighbours except the ``deaf`` ones answer at once."""
        resolved = str(address) not in self.deaf
        hardware = "02:00:00:00:00:01" if resolved else None
        self.entries[interface, address] = Neighbour(hardware, resolved, False, True)

    def forget_neighbour(self, interface: str, address: IPAddress, keep: str | None) -> None:
        """The entry goes, or is as it was."""
        del self.entries[interface, address]
        if keep is not None:
            self.entries[interface, address] = Neighbour(keep, True, False, False)


class AirNft(Nft):
    """Tables as the text that made them."""

    def __init__(self) -> None:
        self.tables: dict[tuple[int, str], str] = {}
        self.refuse = ""

    def require(self) -> None:
        """Everything is there."""

    def rehearse(self, text: str) -> None:
        """Fails if told to refuse."""
        if self.refuse == "rehearse":
            raise PlatformError("no nat here")

    def rehearse_change(self, before: str, after: str, reset: Iterable[str] = ()) -> None:
        """As ``rehearse``."""
        self.rehearse(after)

    def change(self, before: str, after: str, reset: Iterable[str] = ()) -> None:
        """Changes only an existing table."""
        assert any(held.startswith(before) for held in self.tables.values())
        self.load(after)

    def trial(self, text: str) -> str:
        """Refuses leases if told to."""
        return "no dynamic sets here" if self.refuse == "leases" else ""

    def load(self, text: str) -> None:
        """A text is a whole table, or the removal of one."""
        if self.refuse == "load":
            raise PlatformError("the table was refused")
        verb, _, family, table = text.split(maxsplit=4)[:4]
        place = (6 if family == "ip6" else 4, table)
        if verb == "delete":
            del self.tables[place]
        else:
            self.tables[place] = text

    def remove(self, family: int, *tables: str) -> None:
        """A missing table is no error."""
        for table in tables or (TABLE,):
            if (family, table) in self.tables:
                self.load(f"delete table {NFT_FAMILY[family]} {table}")

    def present(self, family: int) -> frozenset[str]:
        """The names of the tables."""
        return frozenset(name for of, name in self.tables if of == family)

    def held(self, family: int, table: str = TABLE, *, terse: bool = False) -> str:
        """The text."""
        return self.tables.get((family, table), "")


class AirConntrack(Conntrack):
    """Records the requests."""

    def __init__(self) -> None:
        self.forgotten: list[int] = []
        self.masks: set[int] = set()
        self.looked_at: list[tuple[str, int, int]] = []
        self.passing: set[int] = set()
        self.entries: list[Entry] = []
        self.marked: list[int | None] = []

    def forget(self, marks: Iterable[int], mask: int = 0xFFFFFFFF) -> None:
        """There are no connections."""
        self.forgotten += marks
        self.masks.add(mask)

    def forget_passing(self, marks: Container[int]) -> None:
        """Records the ``entries`` that would be deleted."""
        self.passing |= {entry.mark for entry in self.entries if entry.mark in marks}

    def remark(self, marks: Container[int], new_mark: Callable[[Entry], int | None]) -> None:
        """The new marks of ``entries``."""
        self.marked += [new_mark(entry) for entry in self.entries if entry.mark in marks]

    def forget_untranslated(self, address: str, first: int, last: int) -> None:
        """There are no connections."""
        self.looked_at.append((address, first, last))


class AirRouting(Routing):
    """Routes, policy rules and proxies in sets; ``lists`` counts how often they were listed."""

    def __init__(self) -> None:
        self.routes: set[Route] = set()
        self.rules: set[PolicyRule] = set()
        self.proxies: set[ProxyEntry] = set()
        self.lists = 0
        self.by_policy: set[int] = set()

    def held(self, family: int, interfaces: Iterable[str]) -> frozenset[RoutingEntry]:
        """All entries."""
        self.lists += 1
        return frozenset({*self.routes, *self.rules, *self.proxies})

    def is_by_policy(self, family: int) -> bool:
        """Of the families ``by_policy``."""
        return family in self.by_policy

    def add_route(self, route: Route) -> None:
        """Two to the same place do not go together."""
        taken = {(r.table, r.address, r.family) for r in self.routes}
        if (route.table, route.address, route.family) in taken:
            raise PlatformError(f"cannot add the route {route}: File exists")
        self.routes.add(route)

    def remove_route(self, route: Route) -> None:
        """A missing route is no error."""
        self.routes.discard(route)

    def add_rule(self, rule: PolicyRule) -> None:
        """An existing rule is no error."""
        self.rules.add(rule)

    def remove_rule(self, rule: PolicyRule) -> None:
        """A missing rule is no error."""
        self.rules.discard(rule)

    def add_proxy(self, entry: ProxyEntry) -> None:
        """An existing entry is no error."""
        self.proxies.add(entry)

    def remove_proxy(self, entry: ProxyEntry) -> None:
        """A missing entry is no error."""
        self.proxies.discard(entry)


class AirSysctl(Sysctl):
    """A directory in which the forwarding switches change the parameters
    that the kernel changes.
    """

    def write(self, key: str, value: str) -> None:
        """As Linux 6: devinet.c inet_forward_change, addrconf.c addrconf_fixup_forwarding."""
        changed = self.read(key) != value
        super().write(key, value)
        family = {"net/ipv4/ip_forward": 4, "net/ipv6/conf/all/forwarding": 6}.get(key)
        if family is None or not changed:
            return
        for name in ("all", "default", *self.interfaces(family)):
            super().write(conf(family, name, "forwarding"), value)
        if family == 4:
            super().write(conf(4, "all", "accept_redirects"), "0" if value == "1" else "1")


class AirDecapsulation(Decapsulation):
    """Ends of tunnels in memory, by interface."""

    def __init__(self) -> None:
        self.ends: set[tuple[TunnelEnd, str]] = set()

    def has(self, end: TunnelEnd, interface: str) -> bool:
        """As the real one."""
        return (end, interface) in self.ends

    def add(self, end: TunnelEnd, interface: str) -> None:
        """As the real one."""
        self.ends.add((end, interface))

    def remove(self, end: TunnelEnd, interface: str) -> None:
        """As the real one."""
        self.ends.discard((end, interface))


class AirTunnelDevices(TunnelDevices):
    """Devices and ports in memory; with ``lacking`` the kernel has none, for that reason. A device
    has parameters in the directory of ``sysctl``.
    """

    def __init__(self, sysctl: Sysctl) -> None:
        self.lacking = "ipip: Unknown device type"
        self.held: set[TunnelDevice | TunnelPort] = set()
        self._sysctl = sysctl

    def refusal(self, family: int, gue: bool) -> str:
        """As set by the test."""
        return self.lacking

    def has(self, device: TunnelDevice) -> bool:
        """As the real one."""
        return device in self.held

    def add(self, device: TunnelDevice) -> None:
        """As the real one."""
        self.held.add(device)
        place = self._sysctl._root / "net/ipv4/conf" / device.name
        place.mkdir(parents=True, exist_ok=True)
        (place / "rp_filter").write_text("1\n")

    def remove(self, device: TunnelDevice) -> None:
        """As the real one."""
        self.held.discard(device)
        shutil.rmtree(self._sysctl._root / "net/ipv4/conf" / device.name, ignore_errors=True)

    def has_port(self, port: TunnelPort) -> bool:
        """As the real one."""
        return port in self.held

    def add_port(self, port: TunnelPort) -> None:
        """As the real one."""
        self.held.add(port)

    def remove_port(self, port: TunnelPort) -> None:
        """As the real one."""
        self.held.discard(port)


@dataclass
class Air:
    """A fake host, and its interfaces to the kernel."""

    netfilter: AirNetfilter
    netlink: AirNetlink
    sysctl: AirSysctl
    nft: AirNft = field(default_factory=AirNft)
    conntrack: AirConntrack = field(default_factory=AirConntrack)
    routing: AirRouting = field(default_factory=AirRouting)
    legacy: AirLegacy = field(default_factory=AirLegacy)
    decapsulation: AirDecapsulation = field(default_factory=AirDecapsulation)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tunnel_devices = AirTunnelDevices(self.sysctl)

    @property
    def host(self) -> Host:
        """The argument of a set-up."""
        edges = (self.netfilter, self.netlink, self.sysctl, self.nft, self.conntrack)
        return Host(*edges, self.routing, self.legacy, self.decapsulation, self.tunnel_devices)

    def say(self, outcome: str, what: str) -> None:
        """Records the lines of a set-up."""
        self.said.append(f"{outcome} {what}")

    def snapshot(self) -> dict[str, Any]:
        """Everything that a set-up might change."""
        return {
            "rules": (self.netfilter.saved(4), self.netfilter.saved(6)),
            "tables": dict(self.nft.tables),
            "ways": (*map(set, (self.routing.routes, self.routing.rules, self.routing.proxies)),),
            "addresses": {name: list(held) for name, held in self.netlink.held.items()},
            "deprecated": set(self.netlink.deprecated),
            "neighbours": dict(self.netlink.entries),
            "ends": set(self.decapsulation.ends),
            "devices": set(self.tunnel_devices.held),
            "sysctls": self.sysctl.snapshot("net/**/*"),
        }


@pytest.fixture
def air(tmp_path: Path) -> Air:
    """A host with lo, eth0 and eth1, that forwards nothing."""
    values: dict[str, str] = defaultdict(lambda: "1", forwarding="0", promote_secondaries="0")
    names = ("forwarding", "accept_redirects", "send_redirects", "promote_secondaries")
    root = tmp_path / "proc-sys"
    for name in ("all", "default", "lo", "eth0", "eth1"):
        for family, keys in (("ipv4", names), ("ipv6", ("forwarding", "accept_ra"))):
            place = root / "net" / family / "conf" / name
            place.mkdir(parents=True)
            for key in keys:
                (place / key).write_text(f"{values[key]}\n")
    (root / "net/ipv6/conf/eth0/proxy_ndp").write_text("0\n")
    for family in ("ipv4", "ipv6"):
        place = root / "net" / family / "neigh" / "eth0"
        place.mkdir(parents=True)
        (place / "proxy_delay").write_text("8\n")
    (root / "net/ipv4/ip_forward").write_text("0\n")
    return Air(AirNetfilter(), AirNetlink(), AirSysctl(root))


@pytest.fixture
def pins(inside: Namespace, tmp_path: Path) -> Iterator[int]:
    """The open directory of a namespace's pins."""
    number = bpffs.open_pins(tmp_path / "bpf")
    yield number
    detach_all(number)
    os.close(number)
    bpffs.remove_pins(tmp_path / "bpf")

"""Changes that lead packets through the host to backends with the VIP: routes, policy rules,
proxies.

Rules: each change is one entry that exists or does not; an entry that existed before is kept. All
fields are part of an entry's identity, so an entry is removed exactly as it was added.
"""

from __future__ import annotations

import ipaddress
import shlex
from dataclasses import dataclass
from typing import ClassVar, Protocol

from paraglider.forward.host_needs import MAIN, PolicyRule, ProxyEntry, Route, RoutingEntry
from paraglider.host.changes.base import Action, Change, Host

_IP = {4: "ip", 6: "ip -6"}


class RoutingChange(Change, Protocol):
    """A change that is one entry of the kernel's routing."""

    @property
    def value(self) -> RoutingEntry:
        """The entry, as ``Routing.held`` lists it."""


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A route to one ``address`` through ``interface``, or the default route of one of our tables,
    ``via`` a neighbour.
    """

    kind: ClassVar[str] = "route"
    family: int
    interface: str
    address: str | None = None
    table: int = MAIN
    via: str | None = None

    @property
    def value(self) -> Route:
        """The route."""
        address, via = (ipaddress.ip_address(a) if a else None for a in (self.address, self.via))
        return Route(self.interface, address, self.table, via)

    @property
    def identity(self) -> tuple[str, ...]:
        """The route in ip(8)'s syntax."""
        return (self.kind, str(self.value))

    def describe(self, action: Action) -> str:
        """The route."""
        return f"route {self.value}" + (" removed" if action == "revert" else "")

    def script(self, host: Host) -> str:
        """ip(8)."""
        return self._command("add")

    def revert_script(self, host: Host) -> str:
        """ip(8)."""
        return self._command("del")

    def apply(self, host: Host) -> None:
        """Add it."""
        host.routing.add_route(self.value)

    def revert(self, host: Host) -> None:
        """Remove it."""
        host.routing.remove_route(self.value)

    def _command(self, verb: str) -> str:
        words = [*_IP[self.family].split(), "route", verb, *str(self.value).split()]
        return shlex.join([*words, "proto", "static"]) + "\n"


@dataclass(frozen=True, slots=True)
class PolicyRuleChange:
    """Packets with a ``mark`` (under ``mask``) are routed by ``table``."""

    kind: ClassVar[str] = "policy rule"
    family: int
    mark: int
    mask: int
    table: int
    priority: int

    @property
    def value(self) -> PolicyRule:
        """The rule."""
        return PolicyRule(self.family, self.mark, self.mask, self.table, self.priority)

    @property
    def identity(self) -> tuple[str, ...]:
        """All its fields."""
        return (self.kind, str(self.family), self._text())

    def describe(self, action: Action) -> str:
        """Mark and table."""
        return f"policy rule {self._text()}" + (" removed" if action == "revert" else "")

    def script(self, host: Host) -> str:
        """ip(8)."""
        return f"{_IP[self.family]} rule add {self._text()}\n"

    def revert_script(self, host: Host) -> str:
        """ip(8)."""
        return f"{_IP[self.family]} rule del {self._text()}\n"

    def apply(self, host: Host) -> None:
        """Add it."""
        host.routing.add_rule(self.value)

    def revert(self, host: Host) -> None:
        """Remove it."""
        host.routing.remove_rule(self.value)

    def _text(self) -> str:
        match = f"fwmark 0x{self.mark:x}/0x{self.mask:x}"
        return f"{match} lookup 0x{self.table:x} priority {self.priority}"


@dataclass(frozen=True, slots=True)
class ProxyChange:
    """``interface`` answers ARP or neighbour discovery for an ``address`` of another host."""

    kind: ClassVar[str] = "proxy"
    family: int
    interface: str
    address: str

    @property
    def value(self) -> ProxyEntry:
        """The entry."""
        return ProxyEntry(self.interface, ipaddress.ip_address(self.address))

    @property
    def identity(self) -> tuple[str, ...]:
        """Interface and address."""
        return (self.kind, self.interface, self.address)

    def describe(self, action: Action) -> str:
        """The address and the interface that answers for it."""
        adverb = "no longer " if action == "revert" else ""
        return f"proxy: {self.interface} {adverb}answers for {self.address}"

    def script(self, host: Host) -> str:
        """ip(8)."""
        return self._command("add")

    def revert_script(self, host: Host) -> str:
        """ip(8)."""
        return self._command("del")

    def apply(self, host: Host) -> None:
        """Add the entry."""
        host.routing.add_proxy(self.value)

    def revert(self, host: Host) -> None:
        """Remove the entry."""
        host.routing.remove_proxy(self.value)

    def _command(self, verb: str) -> str:
        return f"ip neighbour {verb} proxy {self.address} dev {shlex.quote(self.interface)}\n"


def entry_change(family: int, entry: RoutingEntry) -> RoutingChange:
    """The change that makes ``entry`` for ``family`` (4 or 6)."""
    if isinstance(entry, Route):
        address, via = (None if a is None else str(a) for a in (entry.address, entry.via))
        return RouteChange(family, entry.interface, address, entry.table, via)
    if isinstance(entry, PolicyRule):
        return PolicyRuleChange(*entry)
    return ProxyChange(family, entry.interface, str(entry.address))

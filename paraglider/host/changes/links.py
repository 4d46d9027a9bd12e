"""Addresses of interfaces, and neighbours that the kernel keeps resolved.

Rules: removing an address keeps its secondary addresses; neighbour entries that existed before are
kept.
"""

from __future__ import annotations

import ipaddress
import shlex
from dataclasses import dataclass, field
from typing import ClassVar

from paraglider.config.types import IPAddress, IPInterface
from paraglider.errors import PlatformError
from paraglider.host.changes.base import Action, Host
from paraglider.host.sysctl import conf, dotted


@dataclass(frozen=True, slots=True)
class AddressChange:
    """An address of an interface; a ``deprecated`` one is not a source of the host's connections.

    ``previous`` is whether the address of an earlier set-up, which this one replaces, was
    deprecated. ``ahead`` is an existing IPv4 VIP that precedes the host's own address of its
    network (which was added later), so that it would be the source of the host's connections; it is
    moved behind. Both are not stored: the undo removes the address.
    """

    kind: ClassVar[str] = "address"
    family: int
    interface: str
    address: str
    deprecated: bool = False
    previous: bool | None = field(default=None, metadata={"stored": False})
    ahead: bool = field(default=False, metadata={"stored": False})

    @property
    def value(self) -> IPInterface:
        """The address with its prefix."""
        return ipaddress.ip_interface(self.address)

    @property
    def identity(self) -> tuple[str, ...]:
        """Interface, address and prefix."""
        return (self.kind, self.interface, self.address)

    def describe(self, action: Action) -> str:
        """The address and the interface."""
        preposition = "off" if action == "revert" else "on"
        use = "no" if self.deprecated else "a"
        changed = f", {use} source of the host's own" if self.previous is not None else ""
        changed += ", behind the host's own address" if self.ahead else ""
        return f"address {self.address} {preposition} {self.interface}{changed}"

    def script(self, host: Host) -> str:
        """ip(8)."""
        if self.ahead:
            place = f"dev {shlex.quote(self.interface)}\n"
            there = f"ip address add {self._alone} {place}"
            again = f"ip address add {self.address} {place}ip address del {self._alone} {place}"
            return there + self._removal(host) + again
        options = " nodad" if self.family == 6 else ""
        options += " preferred_lft 0" if self.deprecated else ""
        verb = "add"
        if self.previous is not None:
            verb, options = "change", f" preferred_lft {0 if self.deprecated else 'forever'}"
        return f"ip address {verb} {self.address} dev {shlex.quote(self.interface)}{options}\n"

    def revert_script(self, host: Host) -> str:
        """ip(8), with the secondary addresses kept."""
        return "" if self.ahead else self._removal(host)

    def _removal(self, host: Host) -> str:
        command = f"ip address del {self.address} dev {shlex.quote(self.interface)}\n"
        key, value = self._promotion(host)
        if value in (None, "1"):
            return command
        return f"sysctl -w {dotted(key)}=1\n{command}sysctl -w {dotted(key)}={value}\n"

    def apply(self, host: Host) -> None:
        """Add it, make it deprecated or preferred, or move it behind the others of its network.

        While it is moved, the address is also present without its network.
        """
        if self.ahead:
            host.netlink.add_address(self.interface, self._alone)
            try:
                self._remove(host)
                host.netlink.add_address(self.interface, self.value)
            finally:
                host.netlink.remove_address(self.interface, self._alone)
        elif self.previous is not None:
            host.netlink.set_deprecated(self.interface, self.value, self.deprecated)
        else:
            host.netlink.add_address(self.interface, self.value, deprecated=self.deprecated)

    def revert(self, host: Host) -> None:
        """Remove it, or restore its form of the earlier set-up."""
        if self.previous is not None:
            host.netlink.set_deprecated(self.interface, self.value, self.previous)
        elif not self.ahead:
            self._remove(host)

    @property
    def _alone(self) -> IPInterface:
        return ipaddress.ip_interface(self.value.ip)

    def _remove(self, host: Host) -> None:
        """Remove it without its secondary addresses.

        With the primary address of an IPv4 subnet the kernel removes the secondary ones, unless
        they are promoted (Linux, net/ipv4/devinet.c: __inet_del_ifa). If that parameter cannot be
        written, they are added again.
        """
        key, value = self._promotion(host)
        if value is None or value == "1":
            host.netlink.remove_address(self.interface, self.value)
            return
        try:
            host.sysctl.write(key, "1")
        except PlatformError:  # /proc/sys is read-only
            host.netlink.remove_address(self.interface, self.value, keep=True)
            return
        try:
            host.netlink.remove_address(self.interface, self.value)
        finally:
            host.sysctl.write(key, value)

    def _promotion(self, host: Host) -> tuple[str, str | None]:
        key = conf(4, self.interface, "promote_secondaries")
        return key, host.sysctl.read(key) if self.family == 4 else None


@dataclass(frozen=True, slots=True)
class NeighbourChange:
    """The kernel keeps a backend's hardware address resolved.

    ``keep`` is the hardware address of an entry that existed before, if any.
    """

    kind: ClassVar[str] = "neighbour"
    family: int
    interface: str
    address: str
    keep: str | None = None

    @property
    def value(self) -> IPAddress:
        """The backend's address."""
        return ipaddress.ip_address(self.address)

    @property
    def identity(self) -> tuple[str, ...]:
        """Interface and address."""
        return (self.kind, self.interface, self.address)

    def describe(self, action: Action) -> str:
        """The backend and its interface."""
        adverb = "no longer kept" if action == "revert" else "kept"
        return f"neighbour {self.address} on {self.interface} {adverb} resolved"

    def script(self, host: Host) -> str:
        """ip(8)."""
        device = shlex.quote(self.interface)
        return f"ip neighbour replace {self.address} dev {device} managed\n"

    def revert_script(self, host: Host) -> str:
        """ip(8)."""
        device = shlex.quote(self.interface)
        if self.keep is None:
            return f"ip neighbour del {self.address} dev {device}\n"
        return f"ip neighbour replace {self.address} dev {device} lladdr {self.keep} nud stale\n"

    def apply(self, host: Host) -> None:
        """Make the kernel resolve it and keep it resolved."""
        host.netlink.manage_neighbour(self.interface, self.value)

    def revert(self, host: Host) -> None:
        """Make it an ordinary entry again, or remove it."""
        host.netlink.forget_neighbour(self.interface, self.value, self.keep)

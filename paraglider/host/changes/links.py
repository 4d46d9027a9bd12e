"""Addresses of interfaces, and neighbours that the kernel keeps resolved.

Rules: an address is removed alone; an entry of the neighbour table that was there before us stays.
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
    """An interface gets an address; a ``deprecated`` one is no source for the host's own.

    ``previous`` is whether an earlier set-up's address, which this run replaces, was deprecated.
    ``ahead`` is an IPv4 one that is there and stands before the host's own address of its network,
    as when that was added later: so it would be the source of the host's connections, and is put
    behind. Neither is stored, for undoing removes the address.
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
        """Add it, or make what is there deprecated or preferred, or the last of its network.

        What goes behind is here all the while, as an address without a network.
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
        """Remove it, and it alone; or make of it what it was in an earlier set-up."""
        if self.previous is not None:
            host.netlink.set_deprecated(self.interface, self.value, self.previous)
        elif not self.ahead:
            self._remove(host)

    @property
    def _alone(self) -> IPInterface:
        return ipaddress.ip_interface(self.value.ip)

    def _remove(self, host: Host) -> None:
        """Remove it alone.

        With the primary address of an IPv4 subnet the kernel drops the secondary ones, which may be
        somebody's, unless they are promoted (Linux, net/ipv4/devinet.c: __inet_del_ifa). Where the
        parameter for that cannot be written they are added again.
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

    ``keep`` is the hardware address of an entry that the kernel had learnt before, if any.
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
        """The backend and where it is."""
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
        """Ask the kernel to resolve it and to keep it so."""
        host.netlink.manage_neighbour(self.interface, self.value)

    def revert(self, host: Host) -> None:
        """Leave the entry to the kernel's ordinary ways, or remove it."""
        host.netlink.forget_neighbour(self.interface, self.value, self.keep)

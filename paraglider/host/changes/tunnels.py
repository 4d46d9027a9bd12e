"""The ends of tunnels on a backend's host: by BPF, or by devices of the kernel."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from paraglider.host.changes.base import Action, Host
from paraglider.host.decapsulation import TunnelEnd
from paraglider.host.sysctl import conf, dotted
from paraglider.host.tunnel_devices import MODULE, Command, TunnelDevice, TunnelPort

_LOOSE = "2"  # rp_filter: a route to the source by any interface is enough (RFC 3704 §2.4)


@dataclass(frozen=True, slots=True)
class TunnelEndChange:
    """A BPF program at ``interface`` takes the outer header off packets to ``backend`` with ``vip``
    inside; ``port`` is the UDP port of GUE, 0 without.
    """

    kind: ClassVar[str] = "tunnel end"
    family: int
    interface: str
    backend: str
    vip: str
    port: int

    @property
    def end(self) -> TunnelEnd:
        """The end of the tunnel."""
        backend, vip = ipaddress.ip_address(self.backend), ipaddress.ip_address(self.vip)
        return TunnelEnd(backend, vip, self.port)

    @property
    def identity(self) -> tuple[str, ...]:
        """Interface, addresses and port."""
        return (self.kind, self.interface, self.backend, self.vip, str(self.port))

    def describe(self, action: Action) -> str:
        """The packets and the interface."""
        way = f"UDP port {self.port}" if self.port else "IP in IP"
        verb = "no longer decapsulates" if action == "revert" else "decapsulates"
        return f"{self.interface} {verb} packets for {self.vip} to {self.backend} ({way}), by BPF"

    def script(self, host: Host) -> str:
        """A remark: no program of the system loads it."""
        return f"# {self.describe('apply')}: by `paraglider backend-setup --apply` only\n"

    def revert_script(self, host: Host) -> str:
        """A remark."""
        return "# the BPF program: by `paraglider backend-setup --undo`\n"

    def apply(self, host: Host) -> None:
        """Load the program where it is not there, and add the end."""
        host.decapsulation.add(self.end, self.interface)

    def revert(self, host: Host) -> None:
        """Remove the end, and the program with the last one."""
        host.decapsulation.remove(self.end, self.interface)


@dataclass(frozen=True, slots=True)
class TunnelDeviceChange:
    """A device of the kernel takes the outer IP header off packets to ``address``.

    The clients' packets arrive at the device, and the route to the clients is by another: an IPv4
    device gets a loose ``rp_filter``.
    """

    kind: ClassVar[str] = "tunnel device"
    family: int
    address: str

    @property
    def device(self) -> TunnelDevice:
        """The device."""
        return TunnelDevice(ipaddress.ip_address(self.address))

    @property
    def identity(self) -> tuple[str, ...]:
        """The address."""
        return (self.kind, self.address)

    def describe(self, action: Action) -> str:
        """The device and the packets."""
        verb = "no longer decapsulates" if action == "revert" else "decapsulates"
        return f"{self.device.name} {verb} packets to {self.address} (IP in IP)"

    def script(self, host: Host) -> str:
        """ip(8), and sysctl(8)."""
        creation, *others = self.device.commands()
        loose = [f"sysctl -w {dotted(key)}={_LOOSE}" for key in self._filters]
        return "".join(f"{line}\n" for line in (shlex.join(creation), *loose, *_lines(others)))

    def revert_script(self, host: Host) -> str:
        """ip(8)."""
        return f"{shlex.join(self.device.removal())}\n"

    def apply(self, host: Host) -> None:
        """Make the device."""
        host.tunnel_devices.add(self.device)
        for key in self._filters:
            host.sysctl.write(key, _LOOSE)

    def revert(self, host: Host) -> None:
        """Remove the device; its parameters go with it."""
        host.tunnel_devices.remove(self.device)

    @property
    def _filters(self) -> list[str]:
        return [conf(4, self.device.name, "rp_filter")] if self.family == 4 else []


@dataclass(frozen=True, slots=True)
class TunnelPortChange:
    """The kernel takes UDP and GUE off packets to the UDP ``port`` of ``address``, for the device
    of this address.
    """

    kind: ClassVar[str] = "tunnel port"
    family: int
    address: str
    port: int

    @property
    def bound(self) -> TunnelPort:
        """The port of the kernel."""
        return TunnelPort(ipaddress.ip_address(self.address), self.port)

    @property
    def identity(self) -> tuple[str, ...]:
        """Address and port."""
        return (self.kind, self.address, str(self.port))

    def describe(self, action: Action) -> str:
        """The port and the address."""
        verb = "no longer accepts" if action == "revert" else "accepts"
        return f"the kernel {verb} GUE at UDP port {self.port} of {self.address}"

    def script(self, host: Host) -> str:
        """modprobe(8) and ip(8)."""
        return f"{shlex.join(MODULE)} || :\n{shlex.join(self.bound.command())}\n"

    def revert_script(self, host: Host) -> str:
        """ip(8)."""
        return f"{shlex.join(self.bound.removal())}\n"

    def apply(self, host: Host) -> None:
        """Bind it."""
        host.tunnel_devices.add_port(self.bound)

    def revert(self, host: Host) -> None:
        """Release it."""
        host.tunnel_devices.remove_port(self.bound)


def _lines(commands: Iterable[Command]) -> Iterable[str]:
    return (shlex.join(command) for command in commands)

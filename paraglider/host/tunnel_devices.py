"""Removes the outer headers of tunnels on a backend's host, by devices of the kernel.

Lives here: ``TunnelDevice`` and ``TunnelPort``, each with its commands; ``TunnelDevices``, which
runs them.
Rules: a device takes IP in IP for one address of this host, from any host (Linux,
net/ipv4/ip_tunnel.c: ip_tunnel_lookup; net/ipv6/ip6_tunnel.c: ip6_tnl_lookup); so one device serves
all services of a backend. A port removes UDP and GUE (net/ipv4/fou_core.c), and the device what is
left. Adding what exists and removing what is missing are not errors.
"""

from __future__ import annotations

import json
import os
import shlex
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

from paraglider.config.types import IPAddress
from paraglider.errors import OperatorError, PlatformError
from paraglider.netfilter.programs import attempt, complaint, find_program, run

_KINDS = {4: "ipip", 6: "ip6tnl"}
#: what is accepted in the outer header: IPv4 in IPv4, IPv6 in IPv6
_MODES = {4: "ipip", 6: "ip6ip6"}
#: addresses for documentation (RFC 5737, RFC 3849); a device may have one that the host lacks
_SOMEWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
#: the address of interfaces that have none (RFC 7600 §3.1); no host uses it
_DUMMY = "192.0.0.8"

Command = list[str]
"""A command as an argument list."""

MODULE: Final[Command] = ["modprobe", "-q", "fou"]
"""Loads the module of ports, which the kernel does not load by itself as it does with devices."""


class TunnelDevice(NamedTuple):
    """A device that decapsulates packets to ``address`` (IPv4 in IPv4, or IPv6 in IPv6)."""

    address: IPAddress

    @property
    def kind(self) -> str:
        """The type of the device, as ip(8) has it."""
        return _KINDS[self.address.version]

    @property
    def name(self) -> str:
        """Its type and the address in hex, of an IPv6 one the CRC (15 bytes are allowed)."""
        short = self.address.packed if self.address.version == 4 else self._sum
        return f"{self.kind}-{short.hex()}"

    @property
    def _sum(self) -> bytes:
        return zlib.crc32(self.address.packed).to_bytes(4, "big")

    def creation(self) -> Command:
        """The command that makes the device."""
        return _creation(self.address.version, self.name, str(self.address))

    def commands(self) -> list[Command]:
        """The commands that make the device and set it up.

        An IPv4 device gets an address: without one, even a loose rp_filter drops all that arrives
        there (Linux, net/ipv4/fib_frontend.c: __fib_validate_source). An IPv6 device gets none:
        with a link-local one the kernel would send multicast reports into the tunnel.
        """
        device = ["ip", "link", "set", "dev", self.name]
        own = ["ip", "address", "add", f"{_DUMMY}/32", "dev", self.name, "scope", "host"]
        prepared = own if self.address.version == 4 else [*device, "addrgenmode", "none"]
        return [self.creation(), prepared, [*device, "up"]]

    def removal(self) -> Command:
        """The command that removes the device."""
        return ["ip", "link", "del", "dev", self.name]


class TunnelPort(NamedTuple):
    """Removes UDP and GUE from packets to the UDP ``port`` of ``address``."""

    address: IPAddress
    port: int

    def command(self) -> Command:
        """The command that binds the port."""
        return [*self._fou("add"), "gue", "local", str(self.address)]

    def removal(self) -> Command:
        """The command that releases the port."""
        return [*self._fou("del"), "local", str(self.address)]

    def _fou(self, verb: str) -> Command:
        return ["ip", f"-{self.address.version}", "fou", verb, "port", str(self.port)]


class TunnelDevices:
    """Devices and ports of the network namespace of this process."""

    def __init__(self) -> None:
        self._refusals: dict[tuple[int, bool], str] = {}

    def refusal(self, family: int, gue: bool) -> str:
        """Why the kernel does not decapsulate IP in IP of ``family`` (4 or 6), or GUE with it;
        empty if it does.

        The kernel is asked to make the device and the port in a network namespace that ends with
        the question. That loads the kernel's modules.
        """
        if (family, gue) not in self._refusals:
            self._refusals[family, gue] = _refusal(family, gue)
        return self._refusals[family, gue]

    def has(self, device: TunnelDevice) -> bool:
        """Whether the device exists, with this address, and is up."""
        found = _found(device)
        return _is_same(device, found) and "UP" in found.get("flags", ())

    def add(self, device: TunnelDevice) -> None:
        """Make the device; raises ``PlatformError``, also if another one has its name."""
        found = _found(device)
        if _is_same(device, found):
            if "UP" in found.get("flags", ()):
                return
            self.remove(device)  # a set-up that was killed has left it
        elif found:
            raise PlatformError(
                f"there is another device {device.name}, which is not {device.kind} with the"
                f" address {device.address}",
                f"remove it (ip link del dev {device.name}), or use --decapsulation bpf",
            )
        creation, *others = device.commands()
        done = attempt(creation)
        if done.returncode != 0:
            raise PlatformError(
                f"{shlex.join(creation)} failed: {complaint(done)}",
                f"look for another device with this address (ip -d link show type {device.kind}),"
                " or use --decapsulation bpf",
            )
        for command in others:
            run(command)

    def remove(self, device: TunnelDevice) -> None:
        """Remove the device; raises ``PlatformError``."""
        done = attempt(device.removal())
        if done.returncode != 0 and "Cannot find device" not in done.stderr:
            raise PlatformError(f"{shlex.join(device.removal())} failed: {complaint(done)}")

    def has_port(self, port: TunnelPort) -> bool:
        """Whether the kernel has the port."""
        return any(
            found.get("port") == port.port and found.get("local") == str(port.address)
            for found in _shown(["ip", "-j", "fou", "show"])
        )

    def add_port(self, port: TunnelPort) -> None:
        """Bind the port; raises ``PlatformError``."""
        if self.has_port(port):
            return
        _load_module()
        done = attempt(port.command())
        if done.returncode != 0:
            raise PlatformError(
                f"{shlex.join(port.command())} failed: {complaint(done)}",
                f"see which program has the UDP port {port.port} (ss -lnup), or use"
                " --decapsulation bpf",
            )

    def remove_port(self, port: TunnelPort) -> None:
        """Release the port; raises ``PlatformError``."""
        if self.has_port(port):
            run(port.removal())


def _found(device: TunnelDevice) -> dict[str, Any]:
    """The device of that name, as ip(8) shows it; empty without one."""
    return next(iter(_shown(["ip", "-d", "-j", "link", "show", "dev", device.name])), {})


def _is_same(device: TunnelDevice, found: dict[str, Any]) -> bool:
    """Whether ``found`` is of the kind and has the address of ``device``."""
    link = found.get("linkinfo", {})
    local = link.get("info_data", {}).get("local")
    return (link.get("info_kind"), local) == (device.kind, str(device.address))


def _creation(family: int, name: str, address: str) -> Command:
    type_ = ["type", _KINDS[family], "mode", _MODES[family]]
    return ["ip", "link", "add", "name", name, *type_, "local", address]


def _refusal(family: int, gue: bool) -> str:
    lines = [_creation(family, "probe", _SOMEWHERE[family])]
    if gue:
        _load_module()
        lines.append(["ip", "fou", "add", "port", "6080", "gue"])
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    where = ["unshare", *user, "--net", find_program("ip"), f"-{family}", "-batch", "-"]
    done = attempt(where, "".join(f"{shlex.join(line[1:])}\n" for line in lines))
    if done.returncode == 0:
        return ""
    missing = "fou" if "Command failed -:2" in done.stderr else _KINDS[family]
    return f"{missing}: {next(_reasons(done.stderr.splitlines()), complaint(done))}"


def _load_module() -> None:
    with suppress(OperatorError):  # there is no modprobe: all is built in, or refused later
        attempt(MODULE)


def _reasons(lines: Iterable[str]) -> Iterator[str]:
    """What the kernel said, of the output of ip(8)."""
    for line in lines:
        text = line.removeprefix("Error: ").removeprefix("RTNETLINK answers: ").rstrip(".")
        if text and not text.startswith(("Command failed", "Error talking")):
            yield text


def _shown(command: Command) -> list[dict[str, Any]]:
    """The objects that ``command`` of ip(8) shows; none if it fails."""
    done = attempt(command)
    try:
        found = json.loads(done.stdout) if done.returncode == 0 else []
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)]

"""Plans how a backend's host removes the outer headers of ``forward: tunnel``.

Lives here: ``Decapsulation``, the ways to do it; ``choose``; ``kernel_steps``; ``bpf_step``.
Rules: planning only reads, but for the modules that the kernel loads when it is asked for a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from paraglider.config.model import Service
from paraglider.config.types import IPAddress
from paraglider.errors import PlatformError
from paraglider.host.changes.base import Host
from paraglider.host.changes.tunnels import TunnelDeviceChange, TunnelEndChange, TunnelPortChange
from paraglider.host.step import Records, Step

Decapsulation = Literal["auto", "kernel", "bpf"]
"""Devices of the kernel where it has them, else BPF; the devices; BPF."""


def choose(service: Service, way: Decapsulation, host: Host) -> tuple[Decapsulation, str]:
    """What removes the outer headers of ``service`` with ``way``: "kernel" or "bpf"; and why not
    the kernel's devices, if they were the first choice.

    Raises ``PlatformError`` if the kernel cannot make the devices that ``way`` demands.
    """
    if way == "bpf":
        return "bpf", ""
    why = host.tunnel_devices.refusal(service.family, bool(service.encapsulation.udp_port))
    if way == "kernel" and why:
        raise PlatformError(
            f"the kernel has no device that decapsulates packets of `{service.name}`: {why}",
            "use --decapsulation bpf, or a kernel with the modules ipip, ip6_tunnel and fou",
        )
    return ("bpf", why) if why else ("kernel", "")


def bpf_step(
    service: Service, address: IPAddress, interface: str, host: Host, records: Records
) -> Step:
    """The step by which BPF decapsulates packets that arrive at ``interface`` for ``address``, a
    backend of ``service``.
    """
    vip, port = str(service.vip.ip), service.encapsulation.udp_port
    change = TunnelEndChange(service.family, interface, str(address), vip, port)
    return _step(change, host.decapsulation.has(change.end, interface), records)


def kernel_steps(
    service: Service, address: IPAddress, host: Host, records: Records
) -> Iterator[Step]:
    """The steps by which devices decapsulate packets to ``address``, a backend of ``service``."""
    device = TunnelDeviceChange(service.family, str(address))
    yield _step(device, host.tunnel_devices.has(device.device), records)
    if port := service.encapsulation.udp_port:
        bound = TunnelPortChange(service.family, str(address), port)
        yield _step(bound, host.tunnel_devices.has_port(bound.bound), records)


def _step(
    change: TunnelEndChange | TunnelDeviceChange | TunnelPortChange, there: bool, records: Records
) -> Step:
    old = records.get(change.identity)
    return Step("keep" if there else "apply", change, old if there else change)

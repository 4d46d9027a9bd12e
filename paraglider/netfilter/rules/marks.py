"""Marks of backends: 32 bits that identify the backend of a packet.

Lives here: the mark of every backend. The set-up, which writes it into the kernel's maps and policy
rules, and the workers, which return it, compute the same marks.
Rules: a mark is a hash of VIP, protocol and port (the lowest of several), and of the backend's
address and mapped port. It does not change when the file is reordered, when a service is renamed or
gets higher ports, so the kernel's connections keep their backend. If it does change, connections
are re-marked (``netfilter.conntrack``). On a collision the alphabetically later one takes the next
free mark. The marks of dsr depend on the backend's address only (``forward.dsr.marks``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from paraglider.config.model import BackendConfig, Config, Service

BASE = 0x51000000
"""The bits that all marks have in common."""

MASK = 0xFF000000
"""The bits that tell a mark of a backend from any other mark."""

OFFLOADED = f"0x{BASE:08x}/0x{MASK:08x}"
"""Mark and mask, as ``-m connmark --mark`` takes them."""

FAMILY_MASK = 0xFF800000
"""The bits that tell a mark of a backend of one family from any other mark."""

DSR_BASE = 0x52000000
"""The bits that all marks of dsr have in common; the mask is ``MASK``."""

LEASE = 0x00400000
"""The bit by which a worker says of a flow of dsr that the kernel may mark its packets itself."""

LONG_BASE = 0x53000000
"""The bits that all marks of long packets of nat have in common; the mask is ``MASK``."""

LONG = f"0x{LONG_BASE:08x}/0x{MASK:08x}"
"""Mark and mask, as ``-m mark --mark`` takes them."""

TUNNEL_BASE = 0x54000000
"""The bits that all marks of packets sent on in a tunnel have in common; the mask is ``MASK``."""

TUNNELLED = f"0x{TUNNEL_BASE:08x}/0x{MASK:08x}"
"""Mark and mask, as ``-m mark --mark`` takes them."""

SENT = 0x55000000
"""The mark of what a worker sends by itself."""

ROUTED = f"0x{DSR_BASE:08x}/0x{MASK:08x}"
"""Mark and mask, as ``-m mark --mark`` takes them."""

FAMILY_BIT = {4: 0, 6: 0x800000}
"""The bit of a mark that tells its family."""

_SPACE = 0x800000  # marks per family


def family_mark(family: int) -> int:
    """The common bits of all marks of ``family`` (4 or 6), under ``FAMILY_MASK``."""
    return BASE | FAMILY_BIT[family]


def backend_marks(config: Config) -> dict[str, tuple[int, ...]]:
    """The marks of every service that conntrack carries, by its name, in the order of its backends.

    The marks of a family do not depend on the services of the other.
    """
    return marks_of([service for service in config.services if service.method.conntracked], BASE)


def marks_of(services: Sequence[Service], base: int) -> dict[str, tuple[int, ...]]:
    """As ``backend_marks``, of ``services`` and with the bits ``base`` in common."""
    taken: set[int] = set()
    marks: dict[str, int] = {}
    for identity, family in sorted(
        (_identity(service, backend), service.family)
        for service in services
        for backend in service.backends
    ):
        marks[identity] = free_mark(identity, base | FAMILY_BIT[family], _SPACE, taken)
        taken.add(marks[identity])
    return {
        service.name: tuple(marks[_identity(service, backend)] for backend in service.backends)
        for service in services
    }


def target_port(service: Service, backend: BackendConfig) -> int:
    """The backends' port for flows of ``service``; 0 if the client's port is kept."""
    return backend.port or service.single_port or 0


def mapped_ports(service: Service, backend: BackendConfig) -> tuple[int, int] | None:
    """The port of the VIP and that of ``backend`` if nat maps one to the other."""
    vip_port = service.single_port or 0
    return None if backend.port in (None, 0, vip_port) else (vip_port, backend.port)


def _identity(service: Service, backend: BackendConfig) -> str:
    first = "all" if service.all_ports else min(ports.first for ports in service.ports)
    mapped = 0 if backend.port in (None, service.single_port) else backend.port
    return f"{service.vip.ip} {service.protocol} {first} {backend.address} {mapped}"


def free_mark(identity: str, base: int, space: int, taken: set[int]) -> int:
    """The mark of ``identity`` with the bits of ``base``, out of ``space`` marks; the next free one
    if it is in ``taken``.
    """
    digest = hashlib.blake2b(identity.encode(), digest_size=4).digest()
    place = int.from_bytes(digest, "big") % space
    while (mark := base | place) in taken:
        place = (place + 1) % space
    return mark

"""The names of slots, in which BPF counts the packets between a service and a backend.

A worker claims a slot of the carrier's maps by its name, so all workers, and those of the next
daemon, use the same slot. The supervisor finds the slots of the configured backends by their names.

Lives here: ``slot_name``, ``slot_names``.
Rules: pure.
"""

from __future__ import annotations

from hashlib import blake2b

from paraglider.config.model import Config
from paraglider.core.translation import Translation
from paraglider.forward.services import make_backends


def slot_name(service: str, identity: bytes) -> bytes:
    """The name (8 bytes) of the slot of ``service`` for the translation of that ``identity``."""
    return blake2b(service.encode() + b"\0" + identity, digest_size=8).digest()


def slot_names(config: Config) -> dict[bytes, tuple[str, str]]:
    """The names of service and backend, by slot name, of each slot that ``config`` may use: of all
    services whose method has a BPF carrier, so that counts outlast a change of ``carrier``.
    """
    found = {}
    for service in config.services:
        if "carrier" not in service.method.options:
            continue
        vip, port = service.vip.ip.packed, service.single_port or 0
        for backend in make_backends(service):
            identity = Translation(vip, port, backend).identity
            found[slot_name(service.name, identity)] = (service.name, backend.name)
    return found

"""The services that `paraglider start` set up, with the kernel's counters.

Lives here: ``static_services``, from the state and the counters of our tables.
Rules: only reads. Lists the services that are set up, not those of the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from paraglider.errors import PlatformError
from paraglider.forward.static.rules import COUNTED
from paraglider.host.changes.base import Change
from paraglider.host.changes.table import TableChange
from paraglider.netfilter.nft import Nft
from paraglider.netfilter.rules.nft import NFT_FAMILY, TABLE, counter


@dataclass(frozen=True, slots=True)
class StaticBackend:
    """One backend: its share of new connections (0 to 1), connections begun, and packets and bytes
    to the backend and from it. ``port`` is None if the client's port is kept.
    """

    address: str
    port: int | None
    weight: int
    share: float
    conns: int
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class StaticService:
    """One service; ``ports`` as in the configuration, empty for all."""

    name: str
    vip: str
    protocol: str
    ports: str
    strategy: str
    affinity: str
    backends: tuple[StaticBackend, ...]


def static_services(changes: Iterable[Change], nft: Nft) -> list[StaticService]:
    """The services in ``changes``, those of the state; raises ``PlatformError`` when their table
    was removed.
    """
    found = []
    for change in changes:
        if not isinstance(change, TableChange) or not change.served:
            continue
        counts = nft.counters(change.family)
        if counts is None:
            raise PlatformError(
                f"the table {NFT_FAMILY[change.family]} {TABLE} is missing: nothing is balanced",
                "`paraglider start` restores it",
            )
        for service in change.served:
            words = {**service, "backends": _backends(service["backends"], counts)}
            found.append(StaticService(**words))
    return found


def _backends(
    rows: list[dict[str, Any]], counts: dict[str, tuple[int, int]]
) -> tuple[StaticBackend, ...]:
    backends = []
    for row in rows:
        words = dict(row)
        mark = words.pop("mark")
        begun, there, back = (counts.get(counter(mark, n), (0, 0)) for n in COUNTED)
        words |= {"conns": begun[0], "packets_in": there[0], "bytes_in": there[1]}
        words |= {"packets_out": back[0], "bytes_out": back[1]}
        backends.append(StaticBackend(**words))
    return tuple(backends)

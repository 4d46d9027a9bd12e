"""What `paraglider start` has at work, and what the kernel has counted of it.

Lives here: ``started``, from the state and the counters of our tables.
Rules: only reads. What is listed is what was started, whatever the file says by now.
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
class StartedBackend:
    """One backend: its part of the new connections (0 to 1), connections begun since it was
    started, and packets and bytes to it and from it. ``port`` is None where the client's is kept.
    """

    address: str
    port: int | None
    weight: int
    share: float
    connections: int
    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class StartedService:
    """One service; ``ports`` are as the file has them, empty for all."""

    name: str
    vip: str
    protocol: str
    ports: str
    strategy: str
    affinity: str
    backends: tuple[StartedBackend, ...]


def started(changes: Iterable[Change], nft: Nft) -> list[StartedService]:
    """The services that ``changes``, the state's, have started; raises ``PlatformError`` when
    somebody has removed their table.
    """
    found = []
    for change in changes:
        if not isinstance(change, TableChange) or not change.served:
            continue
        counts = nft.counters(change.family)
        if counts is None:
            raise PlatformError(
                f"the table {NFT_FAMILY[change.family]} {TABLE} is gone: nothing is balanced",
                "`paraglider start` puts it back",
            )
        for service in change.served:
            words = {**service, "backends": _backends(service["backends"], counts)}
            found.append(StartedService(**words))
    return found


def _backends(
    rows: list[dict[str, Any]], counts: dict[str, tuple[int, int]]
) -> tuple[StartedBackend, ...]:
    backends = []
    for row in rows:
        words = dict(row)
        mark = words.pop("mark")
        begun, there, back = (counts.get(counter(mark, n), (0, 0)) for n in COUNTED)
        words |= {"connections": begun[0], "packets_in": there[0], "bytes_in": there[1]}
        words |= {"packets_out": back[0], "bytes_out": back[1]}
        backends.append(StartedBackend(**words))
    return tuple(backends)

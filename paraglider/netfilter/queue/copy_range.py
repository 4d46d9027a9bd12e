"""How many bytes of a packet a worker's queues copy.

A worker that rewrites packets needs them whole, and a long one is copied several times then: to the
worker, back, and into one piece in the kernel. Where the kernel has the nft tables by which it
rewrites long packets itself (``forward.nat.long``), the worker reads their heads only. Without the
tables, such packets would be dropped.

Rules: the tables may go and come back (`nft flush ruleset`), so they are looked up once a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from paraglider.core.packet import COPY
from paraglider.netfilter.nfnetlink import has_table
from paraglider.netfilter.queue.base import LONGEST_PACKET

#: seconds between two look-ups
INTERVAL: Final = 1.0


class Needs(Protocol):
    """What ``CopyRange`` needs of a worker's packet path (``forward.worker_datapath``)."""

    head: int | None
    #: whether packets must be whole, with or without the tables
    whole: bool

    @property
    def long_tables(self) -> Iterable[tuple[int, str]]:
        """Tables by family and name."""


class CopyRange:
    """The bytes that the queues of a worker with the packet path ``path`` copy: ``size``.

    ``has_table`` returns whether the kernel has a table.
    """

    def __init__(self, path: Needs, has_table: Callable[[int, str], bool] = has_table) -> None:
        self._path = path
        self._has_table = has_table
        self._next = 0.0
        self.size = self._wanted()

    def tick(self, copy: Callable[[int], object], now: float) -> None:
        """Call ``copy`` with the new size if it has changed; called often."""
        if self._path.head is not None or self._path.whole or now < self._next:
            return
        self._next = now + INTERVAL
        wanted = self._wanted()
        if wanted != self.size:
            copy(wanted)
            self.size = wanted

    def _wanted(self) -> int:
        if self._path.head is not None:
            return self._path.head
        if self._path.whole:
            return LONGEST_PACKET
        present = all(self._has_table(*table) for table in self._path.long_tables)
        return COPY if present else LONGEST_PACKET

"""Flows of one protocol and direction by their keys.

They are in ``SHARDS`` dictionaries, of which only one grows at a time (``sharded``).

A flow that is not in them may be compact (``compact``); then it is expanded when it is looked up.

Lives here: ``FlowIndex``.
Rules: a shard is chosen by the bits of the key's hash that a dictionary looks at last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from sys import getsizeof
from typing import Final

from paraglider.core.compact_index import CompactIndex
from paraglider.core.flow import Flow
from paraglider.core.sharded import SHARDS, SHIFT

# In the compiled module, names with an underscore are C numbers and not importable.
_MASK: Final = SHARDS - 1
_SHIFT: Final = SHIFT

#: bytes of a dictionary for each of its flows, and in all, above which it is copied to shrink: one
#: that has just grown has up to 100 a flow
_LOOSE: Final = 200
_LARGE: Final = 4096


class FlowIndex:
    """Flows by key, as in a dictionary; ``reverse``: by keys of the backends' packets. Those in
    ``compact`` are expanded by ``expand`` (``compact.CompactFlows``), by their record.
    """

    def __init__(self, *, reverse: bool = False) -> None:
        self.compact: CompactIndex | None = None
        self.expand: Callable[[int], object] | None = None
        self._reverse = reverse
        self._trimmed = 0
        #: called with a key that is not found, while flows may be unread (``core.unread``)
        self.missing: Callable[[bytes], object] | None = None
        self._shards: list[dict[bytes, Flow]] = [{} for _ in range(SHARDS)]

    def get(self, key: bytes) -> Flow | None:
        """The flow with ``key``; None without one."""
        shard = self._shards[hash(key) >> _SHIFT & _MASK]
        flow = shard.get(key)
        if flow is None and self.compact is not None and self.compact.count:
            record = self.compact.find(key, self._reverse)
            while record and self.expand is not None:
                self.expand(record)
                record = self.compact.find(key, self._reverse)
            flow = shard.get(key)
        if flow is None and self.missing is not None:
            self.missing(key)
            flow = shard.get(key)
        return flow

    def has(self, key: bytes) -> bool:
        """Whether a flow that is not compact has ``key``; none is expanded or restored."""
        shard = self._shards[hash(key) >> _SHIFT & _MASK]
        return key in shard

    def add(self, key: bytes, flow: Flow) -> None:
        """Have ``flow`` by ``key``."""
        shard = self._shards[hash(key) >> _SHIFT & _MASK]
        shard[key] = flow

    def remove(self, key: bytes) -> None:
        """Remove the flow with ``key``; raises ``KeyError`` without one."""
        shard = self._shards[hash(key) >> _SHIFT & _MASK]
        del shard[key]

    def trim(self) -> None:
        """Free the memory of removed flows in the next shard: a dictionary never shrinks itself."""
        self._trimmed = self._trimmed + 1 & _MASK
        shard = self._shards[self._trimmed]
        size = getsizeof(shard)
        if size > _LARGE and size > _LOOSE * len(shard):
            self._shards[self._trimmed] = dict(shard)

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def __getitem__(self, key: bytes) -> Flow:
        return self._shards[hash(key) >> _SHIFT & _MASK][key]

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def __iter__(self) -> Iterator[bytes]:
        for shard in self._shards:
            yield from shard

    def values(self) -> Iterator[Flow]:
        """All flows but compact ones; none may be added or removed meanwhile."""
        for shard in self._shards:
            yield from shard.values()

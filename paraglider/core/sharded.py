"""A dictionary in parts, for what must not stand still while it grows.

A dictionary that grows copies itself: with a million entries that takes 50 ms, in which no packet
is handled. So the entries are in ``SHARDS`` dictionaries, and only one of them grows at a time.

Lives here: ``Sharded``. ``flow_index`` is the same for flows, compiled.
Rules: a shard is chosen by the bits of the key's hash that a dictionary looks at last.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, Generic, TypeVar

#: dictionaries: with two million entries one copies itself in half a millisecond
SHARDS: Final = 128
#: the first bit of the hash that chooses the shard
SHIFT: Final = 48

_MASK: Final = SHARDS - 1

Value = TypeVar("Value")


class Sharded(Generic[Value]):
    """Values by key, as in a dictionary."""

    def __init__(self) -> None:
        # Made as they are needed: most are of a service with few clients.
        self._shards: defaultdict[int, dict[bytes, Value]] = defaultdict(dict)

    def get(self, key: bytes) -> Value | None:
        """The value of ``key``; None without one."""
        return self._shards[hash(key) >> SHIFT & _MASK].get(key)

    def __getitem__(self, key: bytes) -> Value:
        return self._shards[hash(key) >> SHIFT & _MASK][key]

    def __setitem__(self, key: bytes, value: Value) -> None:
        self._shards[hash(key) >> SHIFT & _MASK][key] = value

    def __delitem__(self, key: bytes) -> None:
        del self._shards[hash(key) >> SHIFT & _MASK][key]

    def __len__(self) -> int:
        return sum(map(len, self._shards.values()))

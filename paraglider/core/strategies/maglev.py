"""``maglev``: consistent hash of the flow key, from a table that is the same on every machine.

Lives here: ``Maglev`` and ``build_table``.

Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4:
each backend has its own permutation of the table's entries, and in turn takes the next entry that
is free. When a backend leaves, its entries get other backends; few other entries change.
Rules: the table depends only on the seed and on the backends' addresses, ports and weights, not on
their order. Building it takes some 50 ms for any number of backends; a pick never builds.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from math import isqrt
from typing import Any, ClassVar, Final

from paraglider.core.parameter import Parameter
from paraglider.core.pool import Backend
from paraglider.core.siphash import siphash13
from paraglider.core.strategies.base import (
    DecisionTable,
    KernelPick,
    Load,
    LookupTable,
    NewFlow,
    Strategy,
)
from paraglider.core.strategies.hashing import flow_hash_key, identity, keyed
from paraglider.core.strategies.turns import interleaved

#: entries of the table: a prime, so that every step walks through all of it; a hundred times the
#: number of backends keeps equal shares within 1 %
SIZE: Final = 65537


def _no_prime(given: int | str) -> str:
    """Why ``given`` is not a valid number of entries, with the next prime; empty for a prime."""
    size = int(given)
    if _is_prime(size):
        return ""
    nearest = next(number for number in range(size, 2 * size) if _is_prime(number))
    return f"{size} is no prime number; write {nearest}"


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


class Maglev(Strategy):
    """Shares by weight; one hash and one look-up per flow. ``table_size`` is a prime."""

    name = "maglev"
    aliases: ClassVar[tuple[str, ...]] = ("mh",)
    summary = "a backend by a consistent hash of addresses and ports, from a table"
    parameters = (
        Parameter(
            "table_size",
            SIZE,
            251,
            655_373,
            "Entries of the table, a prime number; a hundred times the number of backends keeps"
            " equal shares within 1 %.",
            _no_prime,
        ),
    )
    hashes = uses_seed = True
    kernel_pick: ClassVar[KernelPick | None] = "flow"
    kernel_note = "the kernel's hash is not consistent"

    #: what of a flow is hashed, for `explain`
    hashed: ClassVar[str] = "the flow key"

    def __init__(self, seed: int = 0, table_size: int = SIZE, **_context: Any) -> None:
        self._seed = seed
        self.size = table_size
        self._key = flow_hash_key(seed, b"%s flow" % self.name.encode())
        self._backends: tuple[Backend, ...] = ()
        self._table = array("I")
        self._held: dict[Backend, int] | None = None

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Build the table, or take it from the cache when a backend returns."""
        self._backends = tuple(sorted(ready, key=identity))
        shares = tuple((identity(backend), backend.weight) for backend in self._backends)
        self._table = build_table(self._seed, shares, self.size)
        self._held = None

    def pick(self, flow: NewFlow) -> Backend:
        """The backend that holds the entry of the flow's hash."""
        return self._backends[self._table[self.entry(flow)]]

    def entry(self, flow: NewFlow) -> int:
        """The index of a flow's entry; it does not depend on the backends."""
        return siphash13(*self._key, flow.key) % self.size

    def holders(self) -> Iterator[Backend]:
        """The backend of every entry of the table; empty while no backend is ready."""
        return (self._backends[index] for index in self._table)

    def held(self) -> dict[Backend, int]:
        """The number of entries of each backend; counted at the first call."""
        if self._held is None:
            counts = Counter(self._table)
            self._held = {each: counts[index] for index, each in enumerate(self._backends)}
        return self._held

    def shares(self, ready: tuple[Backend, ...]) -> dict[Backend, float | None]:
        """The part of the table that each backend holds."""
        held = self.held()
        return {backend: held[backend] / self.size for backend in ready}

    def reason(self, flow: NewFlow, ready: tuple[Backend, ...]) -> str:
        """Name the entry of the table, and the backend that holds it."""
        backend = self.pick(flow)
        return (
            f"{self.name}: the hash of {self.hashed} falls on entry {self.entry(flow)} of"
            f" {self.size}, which {backend.name} holds, one of its {self.held()[backend]}"
        )

    def kernel_table(self, load: Load, turns: int) -> DecisionTable:
        """The table, and the key of the hash that finds an entry."""
        return DecisionTable(self._backends, self._table, self._key)

    def table(self) -> LookupTable:
        """The backends by entry; equal seeds and sizes lead a flow to the same entry."""
        return LookupTable((self.name, self._seed, self.size), self.holders())


# Services with the same backends share a table (256 KiB each), and so do two states in turn.
@lru_cache(maxsize=32)
def build_table(seed: int, shares: tuple[tuple[bytes, int], ...], size: int = SIZE) -> array[int]:
    """``size`` indices into ``shares``, pairs of an identity and a weight above 0.

    Empty where there are no shares. ``size`` is a prime.
    """
    entries = array("I", [0]) * (size if shares else 0)
    free = bytearray(b"\x01") * size
    places, steps = [], []
    for name, _ in shares:
        state = keyed(seed, 16, b"maglev backend")
        state.update(name)
        drawn = int.from_bytes(state.digest(), "big")
        places.append((drawn >> 64) % size)
        steps.append(drawn % (size - 1) + 1)
    for index in interleaved([weight for _, weight in shares], size):
        place, step = places[index], steps[index]
        while not free[place]:
            place += step
            if place >= size:
                place -= size
        free[place] = 0
        entries[place] = index
        places[index] = place
    return entries

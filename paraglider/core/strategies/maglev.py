"""``maglev``: consistent hash of the flow key, from a table that every machine builds alike.

Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
§3.4: each backend walks the table in an order of its own and takes, turn by turn, the next entry
that is still free. A backend that leaves gives up its entries; few others change hands.
Rules: the table depends on the seed and on the backends' addresses, ports and weights alone, not
on their order. Building it costs some 50 ms, whatever their number, and a pick never builds.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from math import isqrt
from typing import Any, Final

from paraglider.core.parameter import Parameter
from paraglider.core.pool import Backend
from paraglider.core.strategies.base import LookupTable, NewFlow, Strategy
from paraglider.core.strategies.hashing import identity, keyed

#: entries of the table: a prime, so that every step walks through all of it; a hundred times the
#: number of backends keeps equal shares within 1 %
SIZE: Final = 65537


def _no_prime(given: int | str) -> str:
    """What is wrong with so many entries, and the next prime number; empty for a prime."""
    size = int(given)
    if _is_prime(size):
        return ""
    nearest = next(number for number in range(size, 2 * size) if _is_prime(number))
    return f"{size} is no prime number; write {nearest}"


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


class Maglev(Strategy):
    """Flows by weight; one hash and one look-up a flow. ``table_size`` is a prime."""

    name = "maglev"
    aliases = ("mh",)
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
    kernel_note = "the kernel's hash is not consistent"

    def __init__(self, seed: int = 0, table_size: int = SIZE, **_context: Any) -> None:
        self._seed = seed
        self.size = table_size
        self._hash = keyed(seed, 8, b"maglev flow")
        self._backends: tuple[Backend, ...] = ()
        self._table = array("I")
        self._held: dict[Backend, int] | None = None

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Build the table, or find it again: a backend that comes back costs nothing."""
        self._backends = tuple(sorted(ready, key=identity))
        shares = tuple((identity(backend), backend.weight) for backend in self._backends)
        self._table = build_table(self._seed, shares, self.size)
        self._held = None

    def pick(self, flow: NewFlow) -> Backend:
        """The backend that holds the entry of the flow key's hash."""
        return self._backends[self._table[self.entry(flow.key)]]

    def entry(self, key: bytes) -> int:
        """Which entry of the table a flow key falls on: the same for any backends."""
        state = self._hash.copy()
        state.update(key)
        return int.from_bytes(state.digest(), "big") % self.size

    def holders(self) -> Iterator[Backend]:
        """The backend of every entry of the table; nothing while no backend is ready."""
        return (self._backends[index] for index in self._table)

    def held(self) -> dict[Backend, int]:
        """How many entries each backend holds; counted when it is first asked."""
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
            f"maglev: the hash of the flow key falls on entry {self.entry(flow.key)} of"
            f" {self.size}, which {backend.name} holds, one of its {self.held()[backend]}"
        )

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
    for index in _turns([weight for _, weight in shares], size):
        place, step = places[index], steps[index]
        while not free[place]:
            place += step
            if place >= size:
                place -= size
        free[place] = 0
        entries[place] = index
        places[index] = place
    return entries


def _turns(weights: list[int], size: int) -> list[int]:
    """Whose turn it is, ``size`` times: turn n of a weight w comes at the time (n - ½) / w.

    So equal weights take turns one by one, as in the paper; shares are exact but for rounding,
    for any weights; and the times of one backend depend on no other's weight.
    """
    total = sum(weights)
    # Rounding costs no backend more than half a turn: by (size + len / 2) / total all are taken.
    ample = 2 * size + len(weights)
    turns = [
        ((2 * n + 1) / weight, index)
        for index, weight in enumerate(weights)
        for n in range(ample * weight // (2 * total) + 1)
    ]
    turns.sort()
    return [index for _, index in turns[:size]]

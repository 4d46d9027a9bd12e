"""``source``: a hash of the client's address, so that a client keeps its backend without a table.

Weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables",
SPAA 2005): every backend draws a number from the client's hash and its own, and the luckiest per
weight is picked. A backend that leaves moves its own clients and no others; one that comes, or
grows in weight, takes clients and moves none between the others.
"""

from __future__ import annotations

from math import inf, log
from typing import Any, Final

from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow, Strategy
from paraglider.core.strategies.hashing import identity, keyed

_PRIME: Final = (1 << 61) - 1
_UNIT: Final = 2.0**-61


class SourceHash(Strategy):
    """Clients by weight, all ports of a client alike; one pass over the backends a flow.

    A draw is ``(hash of the client XOR mask) · factor mod 2⁶¹-1``, with a mask and a factor of
    each backend: the client is hashed once, whatever the number of backends. Mixing XOR with
    multiplication keeps the draws of two backends apart.
    """

    name = "source"
    aliases = ("sh",)
    summary = "a backend by a hash of the client's address: all ports of a client alike"
    hashes = uses_seed = True
    in_kernel = "source"

    def __init__(self, seed: int = 0, **_context: Any) -> None:
        self._hash = keyed(seed, 8, b"source client")
        self._salt = keyed(seed, 16, b"source backend")
        self._draws: tuple[tuple[Backend, int, int, float], ...] = ()

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """In the order of identities, so that even a tie falls the same way everywhere."""
        self._draws = tuple(self._draw(backend) for backend in sorted(ready, key=identity))

    def pick(self, flow: NewFlow) -> Backend:
        """The backend with the smallest -ln(draw) / weight, a draw being above 0, at most 1."""
        state = self._hash.copy()
        state.update(flow.client)
        client = int.from_bytes(state.digest(), "big")
        least = inf
        for backend, mask, factor, per_weight in self._draws:
            drawn = (client ^ mask) * factor % _PRIME
            cost = -log((drawn + 1) * _UNIT) * per_weight
            if cost < least:
                least, best = cost, backend
        return best

    def reason(self, flow: NewFlow, ready: tuple[Backend, ...]) -> str:
        """Name the backend and its part of the weights."""
        backend = self.pick(flow)
        total = sum(each.weight for each in ready)
        return (
            f"source: of {len(ready)} draws by the hash of the client's address, that of"
            f" {backend.name} is the best for its weight ({backend.weight} of {total}); the same"
            " for every port of the client"
        )

    def _draw(self, backend: Backend) -> tuple[Backend, int, int, float]:
        state = self._salt.copy()
        state.update(identity(backend))
        salt = int.from_bytes(state.digest(), "big")
        return backend, salt >> 64, salt % (_PRIME - 1) + 1, 1 / backend.weight

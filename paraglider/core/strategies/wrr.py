"""``wrr``: smooth weighted round robin, as nginx's upstream module describes it.

Each pick adds every backend's weight to its credit, picks the highest credit, and subtracts the
total from it. Weights 5, 1, 1 give a a b a c a a: exact shares in every cycle, without bursts.
"""

from __future__ import annotations

from math import gcd
from typing import Any, Final

from paraglider.core.pool import Backend
from paraglider.core.strategies.base import DecisionTable, Load, NewFlow, Strategy
from paraglider.core.strategies.turns import interleaved

#: the longest cycle of weights that the kernel's table has whole; of a longer one it has this many
#: entries, or for many backends ``ENTRIES`` each: shares are then rounded
CYCLE: Final = 4096
ENTRIES: Final = 8


class SmoothRoundRobin(Strategy):
    """Shares by weight, interleaved; costs one pass over the ready backends a flow."""

    name = "wrr"
    aliases = ("roundrobin", "static-rr")  # HAProxy's, both by weight
    summary = "the next backend in turn, by weight, interleaved"
    takes_turns = True
    kernel_pick = "turn"
    in_kernel = "wrr"

    def __init__(self, worker: int = 0, **_context: Any) -> None:
        self._ready: tuple[Backend, ...] = ()
        self._credit: list[int] = []
        self._skip = worker

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Backends that stay keep their credit, so that a change does not restart the cycle.

        The credit is limited to one cycle: credit from the time of a heavier backend that left
        would otherwise cause a long burst.
        """
        kept = dict(zip(self._ready, self._credit, strict=True))
        total = sum(backend.weight for backend in ready)
        self._ready = ready
        self._credit = [max(-total, min(total, kept.get(backend, 0))) for backend in ready]
        skip = self._skip % total if ready and not kept else 0
        for _ in range(min(skip, 4096)):
            self._next()

    def pick(self, flow: NewFlow) -> Backend:
        """The backend with the most credit."""
        return self._ready[self._next()]

    def kernel_table(self, load: Load, turns: int) -> DecisionTable:
        """A cycle of the weights."""
        if not self._ready:
            return DecisionTable((), ())
        weights = [backend.weight for backend in self._ready]
        cycle = sum(weights) // gcd(*weights)
        size = cycle if cycle <= CYCLE else max(CYCLE, ENTRIES * len(weights))
        return DecisionTable(self._ready, interleaved(weights, size))

    def _next(self) -> int:
        credit = self._credit
        total = best = 0
        for index, backend in enumerate(self._ready):
            total += backend.weight
            credit[index] += backend.weight
            if credit[index] > credit[best]:
                best = index
        credit[best] -= total
        return best

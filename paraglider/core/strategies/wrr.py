"""``wrr``: smooth weighted round robin, as nginx's upstream module describes it.

Each turn adds every backend's weight to its credit; the richest is picked and pays the total.
Weights 5, 1, 1 give a a b a c a a: the shares are exact in every cycle and never come in bursts.
"""

from __future__ import annotations

from typing import Any

from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow, Strategy


class SmoothRoundRobin(Strategy):
    """Shares by weight, interleaved; costs one pass over the ready backends a flow."""

    name = "wrr"
    summary = "the next backend in turn, by weight, interleaved; each worker keeps its own turn"
    in_kernel = "wrr"

    def __init__(self, worker: int = 0, **_context: Any) -> None:
        self._ready: tuple[Backend, ...] = ()
        self._credit: list[int] = []
        self._skip = worker

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Backends that stay keep their credit; so a change does not start the cycle anew.

        No more of it than a cycle is long: what was saved up beside a heavy backend that left
        would else be paid out in one long burst.
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

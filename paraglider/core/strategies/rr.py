"""``rr``: the next backend in turn, weights left aside."""

from __future__ import annotations

from typing import Any

from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow, Strategy


class RoundRobin(Strategy):
    """Each ready backend in the order of the configuration, one flow each, for ever."""

    name = "rr"
    summary = "the next backend in turn, whatever its weight; each worker keeps its own turn"
    weighs = False
    in_kernel = "rr"

    def __init__(self, worker: int = 0, **_context: Any) -> None:
        self._ready: tuple[Backend, ...] = ()
        self._turn = worker

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """The backend whose turn it is keeps it; where it left, the next of those that stay."""
        before = self._ready
        if before:
            turn = self._turn % len(before)
            for backend in before[turn:] + before[:turn]:
                if backend in ready:
                    self._turn = ready.index(backend)
                    break
        self._ready = ready

    def pick(self, flow: NewFlow) -> Backend:
        """The backend whose turn it is."""
        turn = self._turn % len(self._ready)
        self._turn = turn + 1
        return self._ready[turn]

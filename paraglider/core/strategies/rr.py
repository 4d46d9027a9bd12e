"""``rr``: the next backend in turn; weights are ignored."""

from __future__ import annotations

from typing import Any

from paraglider.core.pool import Backend
from paraglider.core.strategies.base import DecisionTable, Load, NewFlow, Strategy


class RoundRobin(Strategy):
    """Each ready backend in the order of the configuration, one flow each, for ever."""

    name = "rr"
    summary = "the next backend in turn, whatever its weight"
    weighs = False
    takes_turns = True
    kernel_pick = "turn"
    in_kernel = "rr"

    def __init__(self, worker: int = 0, **_context: Any) -> None:
        self._ready: tuple[Backend, ...] = ()
        self._turn = worker

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """The next backend stays the next one; if it left, the first after it that is ready."""
        before = self._ready
        if before:
            turn = self._turn % len(before)
            for backend in before[turn:] + before[:turn]:
                if backend in ready:
                    self._turn = ready.index(backend)
                    break
        self._ready = ready

    def pick(self, flow: NewFlow) -> Backend:
        """The next backend in turn."""
        turn = self._turn % len(self._ready)
        self._turn = turn + 1
        return self._ready[turn]

    def kernel_table(self, load: Load, turns: int) -> DecisionTable:
        """One entry a backend."""
        return DecisionTable(self._ready, range(len(self._ready)))

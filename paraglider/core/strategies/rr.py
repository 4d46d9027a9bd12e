"""``rr``: the next backend in turn, weights left aside."""

from __future__ import annotations

from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow


class RoundRobin:
    """Each ready backend in the order of the configuration, one flow each, for ever."""

    def __init__(self, worker: int = 0) -> None:
        self._ready: tuple[Backend, ...] = ()
        self._turn = worker

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Keep the turn where it stands, so that a change does not favour the first backend."""
        self._ready = ready

    def pick(self, flow: NewFlow) -> Backend:
        """The backend whose turn it is."""
        turn = self._turn % len(self._ready)
        self._turn = turn + 1
        return self._ready[turn]

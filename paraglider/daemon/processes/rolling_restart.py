"""Rolling restart: replaces processes that cannot change in place, one at a time.

The others serve meanwhile, and the journals keep the flows. Each new process starts with the
current state.

Lives here: ``RollingRestart``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import ProcessManager


class RollingRestart:
    """The processes that are to be replaced."""

    def __init__(self) -> None:
        self._due: deque[Child] = deque()
        self._now: Child | None = None

    def add(self, children: Iterable[Child]) -> None:
        """Add processes; one that is queued already is not added again."""
        self._due.extend(child for child in children if child not in self._due)

    def advance(self, manager: ProcessManager) -> None:
        """Restart the next, if none is starting; to be called after every start."""
        if self._now is not None and not (self._now.up and not self._now.dismissed):
            return
        self._now = None
        while self._due:
            child = self._due.popleft()
            if child.pid:  # otherwise it is about to start, with the current state
                self._now = child
                manager.restart(child)
                return

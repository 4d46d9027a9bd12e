"""The heartbeat of a process, in a page of memory shared with the supervisor.

    word 0   monotonic seconds of the last heartbeat (a double)
    word 1   not 0 during a long step: the process applies a configuration
    word 2   the service whose policy is called right now (``counters.identity``), else 0
    word 3   not 0 while a starting process gives heartbeats already
    word 4   the newest version of the store that a worker has applied

Lives here: ``Heartbeat``.
Rules: writing needs no system call; the reader does not trust the writer: all that wrong values can
cause is that the process itself is replaced, or is not.
"""

from __future__ import annotations

import asyncio
import math
import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_BEAT, _LONG, _DECIDING, _WATCHED, _APPLIED = 0, 1, 2, 3, 4

#: seconds between two heartbeats of a process that runs an event loop
INTERVAL: Final = 0.5


class Heartbeat:
    """One process's page; made before the process, and kept for its successors."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._seconds = memoryview(self._memory).cast("d")
        self._words = memoryview(self._memory).cast("q")

    def close(self) -> None:
        """Unmap the memory, in a process that does not use it."""
        self._seconds.release()
        self._words.release()
        self._memory.close()

    def begin(self, now: float) -> None:
        """Reset the page for a new process; its predecessor may have died at any point."""
        self._words[_LONG] = self._words[_DECIDING] = self._words[_WATCHED] = 0
        self._words[_APPLIED] = 0
        self._seconds[_BEAT] = now

    def beat(self, now: float | None = None) -> None:
        """Write a heartbeat at ``now`` (monotonic seconds)."""
        self._seconds[_BEAT] = time.monotonic() if now is None else now

    @contextmanager
    def long_work(self) -> Iterator[None]:
        """The block may take some seconds without a heartbeat."""
        self._words[_LONG] = 1
        try:
            yield
        finally:
            self._words[_LONG] = 0
            self.beat()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The block, before the process reports that it is ready, gives heartbeats."""
        self.beat()
        self._words[_WATCHED] = 1
        try:
            yield
        finally:
            self._words[_WATCHED] = 0

    def pulse(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write a heartbeat now and every INTERVAL seconds, as long as ``loop`` runs."""
        self.beat()
        loop.call_later(INTERVAL, self.pulse, loop)

    @property
    def applied(self) -> int:
        """The newest version of the store that the process has applied; 0 before the first."""
        return self._words[_APPLIED]

    @applied.setter
    def applied(self, version: int) -> None:
        self._words[_APPLIED] = version

    @property
    def deciding(self) -> memoryview:
        """The word for the service whose policy is called; for its writer."""
        return self._words[_DECIDING : _DECIDING + 1]

    @property
    def last(self) -> float:
        """The time of the last heartbeat; -inf if the word is not a number."""
        found = self._seconds[_BEAT]
        return found if math.isfinite(found) else -math.inf

    @property
    def works_long(self) -> bool:
        """Whether the process is in a long step."""
        return self._words[_LONG] != 0

    @property
    def is_watched(self) -> bool:
        """Whether the starting process gives heartbeats."""
        return self._words[_WATCHED] != 0

    @property
    def decides(self) -> int:
        """``identity`` of the service whose policy is called right now, or 0."""
        return self._words[_DECIDING]

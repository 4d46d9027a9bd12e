"""The sign of life of a process, in a page of memory that it shares with the supervisor.

    word 0   monotonic seconds of the last sign (a double)
    word 1   not 0 while the process does what may take long: it takes over a configuration
    word 2   the service whose policy is called right now (``counters.identity``), else 0
    word 3   not 0 while a process that starts gives signs of life already
    word 4   the newest version of the store that a worker has applied

Lives here: ``Heartbeat``.
Rules: the writer costs no system call; the reader believes nothing: a process that writes nonsense
only keeps itself from being replaced, or has itself replaced.
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

#: seconds between two signs of a process that runs an event loop
INTERVAL: Final = 0.5


class Heartbeat:
    """One process's page; made before the process, and kept for those that follow it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._seconds = memoryview(self._memory).cast("d")
        self._words = memoryview(self._memory).cast("q")

    def close(self) -> None:
        """Let the memory go, in a process that it does not concern."""
        self._seconds.release()
        self._words.release()
        self._memory.close()

    def begin(self, now: float) -> None:
        """A process begins; the one before it may have died in the midst of anything."""
        self._words[_LONG] = self._words[_DECIDING] = self._words[_WATCHED] = 0
        self._words[_APPLIED] = 0
        self._seconds[_BEAT] = now

    def beat(self, now: float | None = None) -> None:
        """The process is alive, at ``now`` (monotonic seconds)."""
        self._seconds[_BEAT] = time.monotonic() if now is None else now

    @contextmanager
    def long_work(self) -> Iterator[None]:
        """What is done here may take some seconds without a sign of life."""
        self._words[_LONG] = 1
        try:
            yield
        finally:
            self._words[_LONG] = 0
            self.beat()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What is done here, ahead of the report that the process serves, gives signs of life."""
        self.beat()
        self._words[_WATCHED] = 1
        try:
            yield
        finally:
            self._words[_WATCHED] = 0

    def pulse(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give a sign now, and every INTERVAL seconds for as long as ``loop`` goes round."""
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
        """When the last sign was given; -inf where no number stands there."""
        found = self._seconds[_BEAT]
        return found if math.isfinite(found) else -math.inf

    @property
    def works_long(self) -> bool:
        """Whether the process does what may take long."""
        return self._words[_LONG] != 0

    @property
    def is_watched(self) -> bool:
        """Whether the process, which starts, gives signs of life."""
        return self._words[_WATCHED] != 0

    @property
    def decides(self) -> int:
        """``identity`` of the service whose policy is called right now, or 0."""
        return self._words[_DECIDING]

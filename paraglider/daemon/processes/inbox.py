"""Rate limit for the messages of one process, so that none takes all of the supervisor's time.

A process that sends more than MOST_MESSAGES in a second, or whose messages take longer than SLICE,
is throttled: its messages are not read for a while and wait in its own buffers. So the supervisor
spends at most half of its time on one process, and the memory of one message and a buffer.

Lives here: ``Inbox``.
Rules: the clock is a parameter.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from paraglider.daemon.ipc import Frame

#: messages of one process handled per second
MOST_MESSAGES: Final = 5000
#: seconds spent on the messages of one process at a time
SLICE: Final = 0.1


class Inbox:
    """The received messages that wait; ``clock`` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: deque[Frame] = deque()
        self._second = 0.0
        self._count = 0
        self.muted: float | None = None  # when the process is read from again

    def add(self, messages: Iterable[Frame]) -> None:
        """Add received messages."""
        self._waiting.extend(messages)

    def handle(self, handle: Callable[[Frame], object]) -> bool:
        """Call ``handle`` for the waiting messages, at most a slice; returns whether the process is
        throttled now.
        """
        self.muted = None
        begin = now = self._clock()
        while self._waiting and now - begin < SLICE and self._may_continue(now):
            handle(self._waiting.popleft())
            now = self._clock()
        if not self._waiting:
            return False
        over = self._count >= MOST_MESSAGES
        self.muted = self._second + 1.0 if over else now + (now - begin)
        return True

    def clear(self) -> None:
        """Discard the messages of a process that exited."""
        self._waiting.clear()
        self.muted = None

    def _may_continue(self, now: float) -> bool:
        if now - self._second >= 1.0:
            self._second, self._count = now, 0
        self._count += 1
        return self._count <= MOST_MESSAGES

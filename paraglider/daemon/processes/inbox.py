"""The messages of one process, handled in slices, so that none takes all of the supervisor.

One that sends more than MOST_MESSAGES in a second, or whose messages take longer than SLICE at a
time, is not listened to for a while; what it has to say waits in its own buffers. So whatever it
sends, the supervisor spends half of its time on it at most, and one message and a buffer of memory.

Lives here: ``Inbox``.
Rules: the clock is a parameter.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from paraglider.daemon.ipc import Frame

#: messages that one process may send in a second
MOST_MESSAGES: Final = 5000
#: seconds that are spent on the messages of one process at a time
SLICE: Final = 0.1


class Inbox:
    """What waits; ``clock`` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: deque[Frame] = deque()
        self._second = 0.0
        self._count = 0
        self.muted: float | None = None  # when the process is listened to again

    def put(self, messages: Iterable[Frame]) -> None:
        """These have come."""
        self._waiting.extend(messages)

    def handle(self, take: Callable[[Frame], object]) -> bool:
        """Give ``take`` what waits, a slice of it at most; whether the process is muted now."""
        self.muted = None
        begin = now = self._clock()
        while self._waiting and now - begin < SLICE and self._may_go_on(now):
            take(self._waiting.popleft())
            now = self._clock()
        if not self._waiting:
            return False
        over = self._count >= MOST_MESSAGES
        self.muted = self._second + 1.0 if over else now + (now - begin)
        return True

    def clear(self) -> None:
        """The process is gone, and what it said with it."""
        self._waiting.clear()
        self.muted = None

    def _may_go_on(self, now: float) -> bool:
        if now - self._second >= 1.0:
            self._second, self._count = now, 0
        self._count += 1
        return self._count <= MOST_MESSAGES

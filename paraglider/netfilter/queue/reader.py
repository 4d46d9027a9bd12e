"""Reads the queues of a worker in turns, so that none delays those before it, and none starves.

A turn looks which queues have packets and takes from each in their order: of the first a round,
and up to ``ROUNDS`` as long as rounds are full; of the others ``OTHERS`` packets. So a packet of
the first waits for ``OTHERS`` packets of each other at most, whatever waits there, and the others
get a known part of a worker that the first would fill.

Rules: all waiting is here, in one poll; the clock and the poll are arguments, for tests.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from typing import Final

from paraglider.netfilter.queue.base import Handle, Queue
from paraglider.netfilter.queue.batch import ROUND

#: seconds between two calls of ``tick`` at most, and so the delay of a stop
TICK: Final = 0.05
#: rounds of the first queue in one turn at most
ROUNDS: Final = 4
#: packets of every other queue in one turn at most
OTHERS: Final = 16

#: descriptors that have something to read, in the order of the queues, after so many seconds
Wait = Callable[[float], Sequence[int]]


class Reader:
    """Serves ``queues``, the most urgent first."""

    def __init__(
        self,
        queues: Sequence[Queue],
        clock: Callable[[], float] = time.monotonic,
        wait: Wait | None = None,
    ) -> None:
        self.queues = tuple(queues)
        self._clock = clock
        self._wait = _polling(queues) if wait is None else wait
        self._stopping = False

    @property
    def name(self) -> str:
        """The name of the I/O in the configuration."""
        return self.queues[0].name

    @property
    def packets(self) -> int:
        """Packets that came in all queues."""
        return sum(queue.packets for queue in self.queues)

    @property
    def batches(self) -> int:
        """Rounds in which they did."""
        return sum(queue.batches for queue in self.queues)

    @property
    def faults(self) -> int:
        """Packets dropped because handling them raised."""
        return sum(queue.faults for queue in self.queues)

    @property
    def first_fault(self) -> Exception | None:
        """What was raised first in one of the queues."""
        return next((q.first_fault for q in self.queues if q.first_fault is not None), None)

    @property
    def refused(self) -> int:
        """Verdicts that the kernel refused."""
        return sum(queue.refused for queue in self.queues)

    def serve(self, handle: Handle, tick: Callable[[float], object]) -> None:
        """Read packets and give verdicts until ``stop``; call ``tick(now)`` every TICK seconds.

        Raises OSError when the socket of a queue breaks.
        """
        first = self.queues[0]
        queues = {queue.fileno(): queue for queue in self.queues}
        ready: Sequence[int] = tuple(queues)  # what came before the poll may be in none
        next_tick = 0.0
        while not self._stopping:
            now = self._clock()
            for fd in ready:
                queue = queues[fd]
                if queue is not first:
                    queue.take(handle, OTHERS, now)
                    continue
                for _ in range(ROUNDS):
                    if queue.take(handle, ROUND, now) < ROUND:
                        break
                    now = self._clock()
            if now >= next_tick:
                next_tick = now + TICK
                for queue in self.queues:
                    queue.drops.refresh()
                tick(now)
            ready = self._wait(TICK)

    def stop(self) -> None:
        """Make ``serve`` return soon; may be called from a signal handler."""
        self._stopping = True

    def close(self) -> None:
        """Unbind all queues; the kernel drops what still waits in them."""
        for queue in self.queues:
            queue.close()


def _polling(queues: Sequence[Queue]) -> Wait:
    poll = select.poll()
    for queue in queues:  # poll answers in the order of registration
        poll.register(queue.fileno(), select.POLLIN)

    def wait(seconds: float) -> Sequence[int]:
        return [fd for fd, _ in poll.poll(seconds * 1000)]

    return wait

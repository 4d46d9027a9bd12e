"""Reads the queues of a worker by weight, so that no queue delays those before it or starves.

A turn polls the queues and reads from each readable one, in order: up to ``ROUNDS`` rounds from a
queue of established traffic as long as rounds are full, and ``OTHERS`` packets from every other
queue. An established packet therefore waits for at most ``OTHERS`` packets of each other queue, and
the other queues keep a share of a worker that established traffic alone could fill.

After a tick that found the worker idle, the next one is later, but at once when a descriptor is
readable by which the worker gets messages.

Rules: the only blocking call is one poll; the clock and the poll are arguments, for tests.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from paraglider.netfilter.queue.base import Handle, Queue
from paraglider.netfilter.queue.batch import ROUND

#: seconds between two calls of ``tick`` at most; also how long ``stop`` can take
TICK: Final = 0.05
#: the same while the worker is idle; ``stop`` and messages are noticed at once then
IDLE_TICK: Final = 0.2
#: seconds between two readings of what the kernel dropped, at least
DROPS_INTERVAL: Final = 0.2
#: most rounds of a queue of established traffic in one turn
ROUNDS: Final = 4
#: most packets of every other queue in one turn
OTHERS: Final = 16

#: returns the readable descriptors in the order of the queues, after this many seconds at most
Wait = Callable[[float], Sequence[int]]
#: called with the time; returns whether the worker is idle: without messages and packets, it has no
#: work
Tick = Callable[[float], bool | None]


class QueueReader:
    """Reads ``queues``, the most urgent first; the ``first`` of them have established traffic. The
    packets of those in ``whole`` are copied whole, the others as many bytes as ``copy`` says.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        clock: Callable[[], float] = time.monotonic,
        wait: Wait | None = None,
        *,
        first: int = 1,
        whole: Collection[Queue] = (),
    ) -> None:
        self.queues = tuple(queues)
        self.first = first
        self._copied = [queue for queue in queues if queue not in whole]
        self._clock = clock
        self._wait = _polling(queues) if wait is None else wait
        self._wait_idle: Wait | None = None
        self._waking = -1  # readable after ``stop``
        self._stopping = False

    def wake_by(self, messages: int, wait: Wait | None = None) -> None:
        """Call ``tick`` every IDLE_TICK seconds while the worker is idle, and at once when the
        descriptor ``messages`` is readable. ``wait`` is the poll while idle.
        """
        self._waking = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        more = (messages, self._waking)
        self._wait_idle = _polling(self.queues, more) if wait is None else wait

    @property
    def name(self) -> str:
        """The I/O's name in the configuration."""
        return self.queues[0].name

    @property
    def packets(self) -> int:
        """Packets read from all queues."""
        return sum(queue.packets for queue in self.queues)

    @property
    def batches(self) -> int:
        """Rounds they were read in."""
        return sum(queue.batches for queue in self.queues)

    @property
    def faults(self) -> int:
        """Packets dropped because the handler raised."""
        return sum(queue.faults for queue in self.queues)

    @property
    def first_fault(self) -> Exception | None:
        """The first exception of the handler, over all queues."""
        return next((q.first_fault for q in self.queues if q.first_fault is not None), None)

    @property
    def refused(self) -> int:
        """Verdicts that the kernel refused."""
        return sum(queue.refused for queue in self.queues)

    def serve(self, handle: Handle, tick: Tick) -> None:
        """Read packets and give verdicts until ``stop``, and then one more turn of those that wait;
        call ``tick(now)`` before the first packet, so that the messages that came while the worker
        started hold for it, then every TICK seconds, or less often while it is idle (``wake_by``).
        The counters of drops are read every DROPS_INTERVAL.

        Raises OSError when the socket of a queue breaks.
        """
        first = self.queues[: self.first]
        queues = {queue.fileno(): queue for queue in self.queues}
        ready: Sequence[int] = tuple(queues)  # poll does not report packets read while binding
        last_tick = self._clock()
        next_tick, next_drops = last_tick + TICK, 0.0
        woken = False
        tick(last_tick)
        while True:
            stopping = self._stopping
            if stopping:
                ready = tuple(queues)  # what waited before the signal
            now = self._clock()
            for fd in ready:
                queue = queues.get(fd)
                if queue is None:
                    continue
                if queue not in first:
                    queue.read(handle, OTHERS, now)
                    continue
                for _ in range(ROUNDS):
                    if queue.read(handle, ROUND, now) < ROUND:
                        break
                    now = self._clock()
            if stopping:
                return
            wait, seconds = self._wait, TICK
            if now >= next_tick:
                last_tick, next_tick = now, now + TICK
                if now >= next_drops:
                    next_drops = now + DROPS_INTERVAL
                    for queue in self.queues:
                        queue.drops.refresh()
                # After a message the next tick is an ordinary one, so that messages cause few.
                if tick(now) and not woken and self._wait_idle is not None:
                    wait, seconds, next_tick = self._wait_idle, IDLE_TICK, now + IDLE_TICK
                woken = False
            ready = wait(seconds)
            if ready and seconds == IDLE_TICK:
                woken = not all(fd in queues for fd in ready)
                next_tick = 0.0 if woken else last_tick + TICK

    def stop(self) -> None:
        """Make ``serve`` return soon; may be called from a signal handler."""
        self._stopping = True
        if self._waking >= 0:
            os.eventfd_write(self._waking, 1)

    def copy(self, size: int) -> None:
        """See ``base.Queue.copy``, of all queues whose packets need not be whole."""
        for queue in self._copied:
            queue.copy(size)

    def close(self) -> None:
        """Unbind all queues; the kernel drops what still waits in them."""
        for queue in self.queues:
            queue.close()
        if self._waking >= 0:
            os.close(self._waking)
            self._waking = -1


def _polling(queues: Sequence[Queue], more: Sequence[int] = ()) -> Wait:
    poll = select.poll()
    for fd in (*(queue.fileno() for queue in queues), *more):  # answers are in this order
        poll.register(fd, select.POLLIN)

    def wait(seconds: float) -> Sequence[int]:
        return [fd for fd, _ in poll.poll(seconds * 1000)]

    return wait

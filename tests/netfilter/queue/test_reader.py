"""The turns of the reader, with queues, a clock and a poll that are the test's own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from paraglider.core.verdict import DROP
from paraglider.netfilter.queue import Queue, QueueReader
from paraglider.netfilter.queue import reader as module
from paraglider.netfilter.queue.batch import ROUND
from paraglider.netfilter.queue.reader import DROPS_INTERVAL, IDLE_TICK, OTHERS, ROUNDS, TICK

ESTABLISHED, OPENINGS, MESSAGES = 3, 4, 5  # descriptors


class Fake:
    """A queue in which ``waiting`` packets are; each that is taken costs ``cost`` seconds."""

    name = "fake"
    first_fault = None

    def __init__(self, stage: Stage, fd: int, cost: float) -> None:
        self.waiting = 0
        self.delays: list[float] = []
        self.refreshed = 0
        self.drops = SimpleNamespace(refresh=self._refresh)
        self._stage, self._fd, self._cost = stage, fd, cost
        self._came: list[float] = []

    def _refresh(self) -> None:
        self.refreshed += 1

    def fileno(self) -> int:
        """See ``base.Queue``."""
        return self._fd

    def arrive(self, count: int) -> None:
        """``count`` more packets wait, since now."""
        self._came += [self._stage.now] * count
        self.waiting += count

    def read(self, _handle: object, limit: int, _now: float) -> int:
        """See ``base.Queue``; time passes."""
        count = min(limit, self.waiting)
        for came in self._came[:count]:
            self._stage.now += self._cost
            self.delays.append(self._stage.now - came)
        del self._came[:count]
        self.waiting -= count
        self._stage.taken.append((self._fd, count))
        return count


class Stage:
    """Time, two queues, and the packets read from each, in order."""

    def __init__(self, cost: float = 10e-6) -> None:
        self.now = 100.0
        self.taken: list[tuple[int, int]] = []
        self.established = Fake(self, ESTABLISHED, cost)
        self.openings = Fake(self, OPENINGS, cost)
        self.ticks: list[float] = []
        queues = cast(Sequence[Queue], (self.established, self.openings))
        self.reader = QueueReader(queues, lambda: self.now, self._wait)
        self.arrivals: Callable[[], None] = lambda: None
        self.idle = False
        self.messages: list[float] = []  # when they come

    def _wait(self, seconds: float) -> list[int]:
        self.arrivals()
        queues = (self.established, self.openings)
        ready = [queue.fileno() for queue in queues if queue.waiting]
        if not ready:
            self.now += seconds
        return ready

    def wait_idle(self, seconds: float) -> list[int]:
        """The poll while the worker is idle: until the next message, too."""
        if self.messages and self.messages[0] <= self.now + seconds:
            self.now = max(self.now, self.messages.pop(0))
            return [MESSAGES]
        return self._wait(seconds)

    def run(self, seconds: float) -> None:
        """Serve for so long."""
        end = self.now + seconds

        def tick(now: float) -> bool:
            self.ticks.append(now)
            if now >= end:
                self.reader.stop()
            return self.idle

        self.reader.serve(lambda *_: DROP, tick)


def test_established_traffic_is_served_first() -> None:
    """A turn reads established traffic, then a bounded number of openings, and starts again."""
    stage = Stage()
    stage.established.arrive(ROUND + 1)
    stage.openings.arrive(2 * OTHERS)
    stage.run(0.01)
    assert [entry for entry in stage.taken if entry[1]] == [
        (ESTABLISHED, ROUND),
        (ESTABLISHED, 1),
        (OPENINGS, OTHERS),
        (OPENINGS, OTHERS),
    ]


def test_a_flood_of_openings_does_not_delay_established_traffic() -> None:
    """With any number of waiting openings, an established packet waits for at most one batch of
    them.
    """
    cost = 10e-6
    stage = Stage(cost)

    def arrivals() -> None:
        stage.openings.arrive(512 - stage.openings.waiting)  # as many as the kernel holds
        stage.established.arrive(1)

    stage.arrivals = arrivals
    stage.run(1.0)
    assert len(stage.established.delays) > 1000
    assert max(stage.established.delays) <= (OTHERS + 2) * cost


def test_openings_are_not_starved() -> None:
    """With more established traffic than a worker can handle, openings get their share."""
    stage = Stage()

    def arrivals() -> None:
        stage.established.arrive(2048 - stage.established.waiting)
        stage.openings.arrive(512 - stage.openings.waiting)

    stage.arrivals = arrivals
    stage.run(1.0)
    wanted = OTHERS / (OTHERS + ROUNDS * ROUND)
    opened, carried = len(stage.openings.delays), len(stage.established.delays)
    assert opened / (opened + carried) == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_ticks(busy: bool) -> None:
    """tick is called every TICK seconds under any load; the drop counters are read less often."""
    stage = Stage()
    if busy:
        stage.arrivals = lambda: stage.established.arrive(2048 - stage.established.waiting)
    stage.run(1.0)
    gaps = [b - a for a, b in zip(stage.ticks, stage.ticks[1:], strict=False)]
    longest = TICK + ROUNDS * ROUND * 10e-6
    assert all(TICK - 1e-9 <= gap <= longest + 1e-9 for gap in gaps)
    assert stage.established.refreshed == stage.openings.refreshed
    assert (
        1.0 / (DROPS_INTERVAL + 2 * longest) <= stage.openings.refreshed <= 1.0 / DROPS_INTERVAL + 1
    )


def gaps_of(stage: Stage) -> list[float]:
    """The seconds between the ticks, rounded."""
    return [round(b - a, 6) for a, b in zip(stage.ticks, stage.ticks[1:], strict=False)]


def test_ticks_while_idle() -> None:
    """They are fewer, if the reader knows what wakes the worker."""
    stage = Stage()
    stage.idle = True
    stage.run(1.0)
    assert set(gaps_of(stage)) == {TICK}
    other = Stage()
    other.idle = True
    other.reader.wake_by(MESSAGES, other.wait_idle)
    other.run(1.0)
    assert set(gaps_of(other)[1:]) == {IDLE_TICK}


def test_a_message_wakes_an_idle_worker() -> None:
    """At once; the tick after that one is an ordinary one, however many messages come."""
    stage = Stage()
    stage.idle = True
    stage.reader.wake_by(MESSAGES, stage.wait_idle)
    stage.messages = [100.06, 100.07, 100.08]
    stage.run(0.5)
    ticks = [round(tick - 100.0, 6) for tick in stage.ticks[:6]]
    assert ticks == [0.0, 0.05, 0.06, 0.11, 0.11, 0.16]


def test_packets_while_idle_do_not_cause_ticks() -> None:
    """After packets the next tick is when it would be if the worker were not idle."""
    stage = Stage()
    stage.idle = True
    stage.reader.wake_by(MESSAGES, stage.wait_idle)
    stage.arrivals = lambda: stage.established.arrive(2048 - stage.established.waiting)
    stage.run(1.0)
    longest = TICK + ROUNDS * ROUND * 10e-6
    assert all(TICK - 1e-9 <= gap <= longest + 1e-9 for gap in gaps_of(stage))


def test_stop_ends_the_wait_of_an_idle_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real poll returns, long before the next tick."""
    monkeypatch.setattr(module, "IDLE_TICK", 3600.0)
    stage, ends = Stage(), [os.pipe() for _ in range(3)]
    queues = [Fake(stage, end[0], 0.0) for end in ends[:2]]
    reader = QueueReader(cast(Sequence[Queue], queues))
    reader.wake_by(ends[2][0])
    idle = threading.Event()

    def tick(_now: float) -> bool:
        idle.set()
        return True

    serving = threading.Thread(target=reader.serve, args=(lambda *_: DROP, tick), daemon=True)
    serving.start()
    try:
        assert idle.wait(60)
        reader.stop()
        serving.join(60)
        assert not serving.is_alive()
    finally:
        for end in ends:
            os.close(end[0])
            os.close(end[1])


def test_what_came_before_the_first_poll_is_served() -> None:
    """Packets that were read while a queue was bound show in no poll; they are taken too."""
    stage = Stage()
    stage.run(0.0)
    assert stage.taken[:2] == [(ESTABLISHED, 0), (OPENINGS, 0)]


def test_messages_come_before_the_first_packet() -> None:
    """A worker that starts has a tick before it decides: the configuration may have changed."""
    stage = Stage()
    stage.established.arrive(1)
    ticked: list[int] = []

    def tick(_now: float) -> bool:
        ticked.append(len(stage.taken))
        stage.reader.stop()
        return False

    stage.reader.serve(lambda *_: DROP, tick)
    assert ticked == [0]
    assert stage.taken[0] == (ESTABLISHED, 1)


def test_what_waits_at_the_end_is_served() -> None:
    """Packets that came before ``stop`` are taken, however late the process is woken."""
    stage = Stage()

    def arrivals() -> None:
        stage.established.arrive(1)
        stage.openings.arrive(1)
        stage.reader.stop()

    stage.arrivals = arrivals
    stage.run(1.0)
    assert len(stage.established.delays) == len(stage.openings.delays) == 1


def test_a_broken_socket_is_raised() -> None:
    """An exception of a queue ends ``serve``: the worker is replaced."""
    stage = Stage()

    def broken(*_: Any) -> int:
        raise OSError(9, "Bad file descriptor")

    stage.openings.read = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="Bad file descriptor"):
        stage.run(1.0)

"""The turns of the reader, with queues, a clock and a poll that are the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from paraglider.core.verdict import DROP
from paraglider.netfilter.queue import Queue, QueueReader
from paraglider.netfilter.queue.batch import ROUND
from paraglider.netfilter.queue.reader import DROPS_INTERVAL, OTHERS, ROUNDS, TICK

ESTABLISHED, OPENINGS = 3, 4  # descriptors


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

    def _wait(self, seconds: float) -> list[int]:
        self.arrivals()
        queues = (self.established, self.openings)
        ready = [queue.fileno() for queue in queues if queue.waiting]
        if not ready:
            self.now += seconds
        return ready

    def run(self, seconds: float) -> None:
        """Serve for so long."""
        end = self.now + seconds

        def tick(now: float) -> None:
            self.ticks.append(now)
            if now >= end:
                self.reader.stop()

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


def test_what_came_before_the_first_poll_is_served() -> None:
    """Packets that were read while a queue was bound show in no poll; they are taken too."""
    stage = Stage()
    stage.run(0.0)
    assert stage.taken[:2] == [(ESTABLISHED, 0), (OPENINGS, 0)]


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

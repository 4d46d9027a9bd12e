"""Live flows by mark, in memory that all processes of one Paraglider share.

    live    connections that are not closed       written by the conntrack counter
    begun   connections that began, ever          written by the conntrack counter
    closed  closed ones, still remembered         written by the conntrack counter
    picked  flows decided, ever, a row a worker   written by that worker
    polls   reads of conntrack's events, ever     written by the conntrack counter

A flow is in ``picked`` at once, in ``begun`` and ``live`` when the conntrack counter has its event,
some hundredths of a second later: the difference is in flight and counts too. Some flows never
arrive (a firewall drops the packet), and some begin without a worker (the kernel's hash); so the
minimum of the difference over a while is not counted as in flight. The while is one of reads of the
conntrack counter, which may have to wait for a core: what it has not read is not lost.

Rules: every number has one writer, and is eight bytes, written atomically; no locks.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from paraglider.config.model import Config
from paraglider.netfilter.rules.marks import backend_marks

#: polls, twenty a second, after which a constant difference is taken for lost; one counts if the
#: conntrack counter has read events since the one before, which it does five times a second or more
READINGS: Final = 10
NOTHING: Final[Mapping[int, int]] = {}
_LIVE, _BEGUN, _CLOSED, _PICKED = 0, 1, 2, 3  # rows; the workers' begin with the last


class LiveFlows:
    """The numbers for each of ``marks``; made before the processes that share it."""

    def __init__(self, marks: Iterable[int], workers: int = 1) -> None:
        self._slots = {mark: slot for slot, mark in enumerate(sorted(set(marks)))}
        self._size = len(self._slots)
        self._workers = workers
        self._polls = self._at(_PICKED + workers)
        self._memory = mmap.mmap(-1, 8 * (self._polls + 1))
        self._numbers = memoryview(self._memory).cast("q")

    @property
    def marks(self) -> frozenset[int]:
        """The marks that are counted."""
        return frozenset(self._slots)

    def change(self, mark: int, began: int, ended: int, closed: int = 0) -> None:
        """Add numbers of begun and ended connections of ``mark``, and the change of closed ones
        that conntrack remembers; other marks are ignored.
        """
        slot = self._slots.get(mark)
        if slot is not None:
            live = self._numbers[slot] + began - ended
            self._numbers[self._at(_BEGUN) + slot] += began
            self._numbers[slot] = max(live, 0)
            at = self._at(_CLOSED) + slot
            self._numbers[at] = max(self._numbers[at] + closed, 0)

    def replace(self, counts: Mapping[int, int], closed: Mapping[int, int] = NOTHING) -> None:
        """Set the counts of all connections, with none in flight, and of ``closed`` ones."""
        for mark, slot in self._slots.items():
            rows = range(_PICKED, _PICKED + self._workers)
            picked = sum(self._numbers[self._at(row) + slot] for row in rows)
            self._numbers[self._at(_BEGUN) + slot] = picked
            self._numbers[slot] = counts.get(mark, 0)
            self._numbers[self._at(_CLOSED) + slot] = closed.get(mark, 0)

    def mark_polled(self) -> None:
        """Count a read of conntrack's events, whose changes have been made."""
        self._numbers[self._polls] += 1

    @property
    def polls(self) -> int:
        """How often the conntrack counter has read the events."""
        return self._numbers[self._polls]

    def read(self) -> dict[int, int]:
        """The live connections of every mark, by the conntrack counter."""
        return dict(zip(self._slots, self._row(_LIVE), strict=True))

    def closed(self) -> dict[int, int]:
        """The closed connections of every mark that conntrack remembers."""
        return dict(zip(self._slots, self._row(_CLOSED), strict=True))

    def reader(self, worker: int) -> LiveFlowReader:
        """The reader and writer for the worker ``worker`` (0, 1, …)."""
        return LiveFlowReader(self, worker)

    def on_the_way(self) -> list[int]:
        """Flows picked less connections begun, in the order of the marks' numbers."""
        picked = [self._row(row) for row in range(_PICKED, _PICKED + self._workers)]
        begun = self._row(_BEGUN)
        return [sum(row[slot] for row in picked) - begun[slot] for slot in range(self._size)]

    def picked_by(self, worker: int) -> dict[int, int]:
        """The worker's picks so far, including those of its predecessors."""
        return dict(zip(self._slots, self._row(_PICKED + worker), strict=True))

    def publish(self, worker: int, picked: Mapping[int, int]) -> None:
        """Write the worker's picks."""
        at = self._at(_PICKED + worker)
        for mark, count in picked.items():
            self._numbers[at + self._slots[mark]] = count

    def _at(self, row: int) -> int:
        return row * self._size

    def _row(self, row: int) -> list[int]:
        return self._numbers[self._at(row) : self._at(row + 1)].tolist()


class LiveFlowReader:
    """Called twenty times a second with the flows that the worker has decided since its start, by
    mark; returns the flows of each counted mark, including those in flight.
    """

    def __init__(self, live: LiveFlows, worker: int) -> None:
        self._live = live
        self._worker = worker
        self._before = live.picked_by(worker)
        self._polls = -1  # those of the conntrack counter before the last difference
        self._differences: deque[list[int]] = deque(maxlen=READINGS)

    def __call__(self, decided: Mapping[int, int]) -> dict[int, int]:
        """See the class."""
        live = self._live
        picked = {mark: before + decided.get(mark, 0) for mark, before in self._before.items()}
        live.publish(self._worker, picked)
        polls, difference = live.polls, live.on_the_way()
        kept = difference
        if polls == self._polls:
            kept = list(map(min, self._differences.pop(), difference))
        self._differences.append(kept)
        self._polls = polls
        lost = map(min, zip(*self._differences, strict=True))
        counts = live.read()
        for mark, now, never in zip(counts, difference, lost, strict=True):
            counts[mark] += now - never
        return counts


def wanted(config: Config, workers: int) -> tuple[LiveFlows | None, LiveFlows | None]:
    """The marks that ``config`` needs counted: those of its ``counted`` services, and those of its
    other offloaded services, for display.
    """
    counted, listed = counted_marks(config), listed_marks(config)
    return (
        LiveFlows(counted, workers) if counted else None,
        LiveFlows(listed, 0) if listed else None,
    )


def counted_marks(config: Config) -> frozenset[int]:
    """The marks of the backends whose flow counts the strategies of ``config`` use."""
    marks = backend_marks(config)
    return frozenset(mark for s in config.services if s.counted for mark in marks[s.name])


def listed_marks(config: Config) -> frozenset[int]:
    """The marks of the other offloaded backends, whose flow counts are only displayed."""
    marks = backend_marks(config)
    offloaded = [s for s in config.services if s.method.conntracked and not s.counted]
    return frozenset(mark for s in offloaded for mark in marks[s.name])

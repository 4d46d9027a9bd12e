"""The requests for readings of the kernel's tables, and the values meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paraglider.daemon.messages import Reading
from paraglider.daemon.stats.kernel_readings import (
    AGE,
    INTERVAL,
    SHARE,
    TIMEOUT,
    KernelReadings,
)
from paraglider.netfilter.connections import Fill
from paraglider.netfilter.nfnetlink import CounterValue

READING = Reading(
    tables={4: {"unanswered": 3}, 6: None},
    carried={4: {0x52000000: {"requests": CounterValue(1, 100)}}},
    refused={4: {"tcp": 5}},
    fill=Fill(1, 2, 3),
    errors={6: "refused"},
)


class Helper:
    """A host helper that answers when told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.readings = KernelReadings(clock=lambda: self.now)
        self.asked: list[Callable[[Reading | None], object]] = []
        self.changes = self.shown = 0

    def turn(self, *, needed: bool = True) -> float:
        """One turn of the loop."""

        def changed() -> None:
            self.changes += 1

        return self.readings.reconcile(self.asked.append, changed, needed=needed)

    def show(self) -> None:
        """A request that shows numbers."""

        def show() -> None:
            self.shown += 1

        self.readings.when_new(show)

    def answer(self, reading: Reading | None = READING, after: float = 0.0) -> None:
        """The open request is answered."""
        self.now += after
        self.asked.pop()(reading)


def test_one_request_at_a_time_and_a_reading_every_few_seconds() -> None:
    """With any delay of the helper; the last reading is used until the next."""
    helper = Helper()
    for _ in range(3):
        helper.turn()
        helper.now += INTERVAL
    assert len(helper.asked) == 1
    helper.answer()
    assert helper.readings.tables(4) == {"unanswered": 3}
    assert helper.readings.fill() == Fill(1, 2, 3)
    assert (helper.changes, helper.asked) == (1, [])


def test_a_request_gets_a_new_reading() -> None:
    """A request waits for a reading, and for no longer than TIMEOUT; a new one is good enough."""
    helper = Helper()
    helper.turn()
    helper.answer()
    helper.show()
    assert helper.shown == 1
    helper.now += AGE
    helper.show()
    assert (helper.shown, helper.turn()) == (1, TIMEOUT)
    helper.answer()
    assert helper.shown == 2
    helper.now += AGE
    helper.show()
    helper.turn()
    helper.now += TIMEOUT
    helper.turn()
    assert (helper.shown, len(helper.asked)) == (3, 1)


def test_reading_takes_a_small_part_of_the_time() -> None:
    """After a slow reading the next one is later."""
    helper = Helper()
    helper.turn()
    helper.answer(after=0.5)
    helper.now += 0.5 * SHARE - 0.1
    assert helper.turn() == pytest.approx(0.1)
    assert helper.asked == []
    helper.now += 0.1
    helper.turn()
    assert len(helper.asked) == 1


def test_without_kernel_counters_no_request_waits() -> None:
    """Also requests that were waiting already."""
    helper = Helper()
    helper.show()
    helper.turn()
    helper.show()
    assert (helper.shown, helper.changes) == (1, 0)
    helper.turn(needed=False)
    assert helper.shown == 2


def test_what_cannot_be_read() -> None:
    """An error of a family is raised as reading would; without an answer the last one stays."""
    helper = Helper()
    helper.turn()
    helper.answer()
    with pytest.raises(OSError, match="refused"):
        helper.readings.carried(6)
    helper.now += INTERVAL
    helper.turn()
    helper.answer(None)
    assert helper.readings.refused(4) == {"tcp": 5}
    assert helper.changes == 1

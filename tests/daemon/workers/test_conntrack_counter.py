"""Live flows counted from a list and from events, in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paraglider.daemon.workers.conntrack_counter import (
    LISTING,
    LISTING_SHARE,
    ConnectionLister,
    count_anew,
    count_events,
)
from paraglider.forward.offload.connection_counts import LiveFlows
from paraglider.netfilter.connections import ConntrackEvent, Turn

MARKS = (0x51000001, 0x51000002, 0x51800003)

events = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(MARKS)), max_size=60)


class Table:
    """The kernel's connections, with their events and their list."""

    def __init__(self) -> None:
        self.connections: dict[int, int] = {}
        self.closed: dict[int, int] = {}
        self.told: list[ConntrackEvent] = []

    def happen(self, identity: int, mark: int) -> None:
        """The connection begins; if it is there it closes, or ends if it is even; and then it is
        forgotten.
        """
        turn: Turn = "began"
        if identity in self.connections:
            mark = self.connections.pop(identity)
            turn = "closed" if identity % 2 else "ended"
        elif identity in self.closed:
            mark, turn = self.closed.pop(identity), "forgotten"
        if turn == "began":
            self.connections[identity] = mark
        elif turn == "closed":
            self.closed[identity] = mark
        self.told.append(ConntrackEvent(turn, identity, mark))

    def read(self) -> tuple[list[ConntrackEvent], bool]:
        """The events since the last reading."""
        told, self.told = self.told, []
        return told, False

    def listed(self, meanwhile: list[tuple[int, int]]) -> Iterator[ConntrackEvent]:
        """Every connection, one after the other; something happens after each."""
        pending = list(meanwhile)
        for identity in range(13):
            if identity in self.connections:
                yield ConntrackEvent("began", identity, self.connections[identity])
            elif identity in self.closed:
                yield ConntrackEvent("closed", identity, self.closed[identity])
            for _ in range(3):
                if pending:
                    self.happen(*pending.pop())
        for what in pending:
            self.happen(*what)


@given(events, events, events)
def test_counting_again_is_exact(
    before: list[tuple[int, int]],
    meanwhile: list[tuple[int, int]],
    after: list[tuple[int, int]],
) -> None:
    """With connections that begin and end during the listing, the counts are exact."""
    table, live = Table(), LiveFlows(MARKS)
    live.change(MARKS[0], 99, 0)
    for what in before:
        table.happen(*what)
    count_anew(live, table.read, lambda: table.listed(meanwhile))
    assert +Counter(live.read()) == Counter(table.connections.values())
    assert +Counter(live.closed()) == Counter(table.closed.values())
    for what in after:
        table.happen(*what)
    count_events(live, table.read()[0])
    assert +Counter(live.read()) == Counter(table.connections.values())
    assert +Counter(live.closed()) == Counter(table.closed.values())


def test_a_loss_while_counting_means_counting_again() -> None:
    """The list is requested until no event was lost during it."""
    lists = iter(
        [
            [ConntrackEvent("began", 1, MARKS[0])],
            [ConntrackEvent("began", i, MARKS[1]) for i in range(5)],
        ]
    )
    losses = iter([False, True, False, False])
    live = LiveFlows(MARKS)
    count_anew(live, lambda: ([], next(losses)), lambda: next(lists))
    assert live.read() == {MARKS[0]: 0, MARKS[1]: 5, MARKS[2]: 0}


def test_marks_that_are_not_counted_are_passed_over() -> None:
    """A backend that left the file may still have connections; a count is never below zero."""
    live = LiveFlows(MARKS[:1])
    count_events(live, [ConntrackEvent("began", 1, MARKS[1]), ConntrackEvent("ended", 2, MARKS[0])])
    assert live.read() == {MARKS[0]: 0}
    live.replace({MARKS[0]: 3, MARKS[1]: 7})
    assert live.read() == {MARKS[0]: 3}
    count_events(live, [ConntrackEvent("forgotten", 2, MARKS[0])])
    assert live.closed() == {MARKS[0]: 0}


class Slow:
    """A listing that takes ``seconds``, and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.seconds = 0.01
        self.connections: list[int] | None = []
        self.times = 0
        self.warnings: list[str] = []

    def clock(self) -> float:
        """Monotonic seconds."""
        return self.now

    def everything(self) -> Iterator[ConntrackEvent]:
        """All connections; raises if the kernel refuses."""
        self.times += 1
        self.now += self.seconds
        if self.connections is None:
            raise OSError(16, "Device or resource busy")
        listed = [ConntrackEvent("began", i, mark) for i, mark in enumerate(self.connections)]
        return iter([*listed, ConntrackEvent("closed", 99, MARKS[0])])

    def warning(self, event: str, **details: Any) -> None:
        """A line of the log."""
        self.warnings.append(f"{event}: {details['why']}")


def test_listing_keeps_its_pace() -> None:
    """At most every LISTING seconds, and less often if it takes long; connections of others are not
    counted.
    """
    slow, live = Slow(), LiveFlows(MARKS[:2], 0)
    lister = ConnectionLister(live, slow.everything, slow.clock)
    slow.connections = [MARKS[0], MARKS[0], MARKS[1], MARKS[2]]
    lister.poll(slow)
    assert live.read() == {MARKS[0]: 2, MARKS[1]: 1}
    assert live.closed() == {MARKS[0]: 1, MARKS[1]: 0}
    slow.now += LISTING - 0.1
    lister.poll(slow)
    assert slow.times == 1
    slow.now += 0.2
    slow.connections, slow.seconds = [MARKS[1]], 2.0
    lister.poll(slow)
    assert live.read() == {MARKS[0]: 0, MARKS[1]: 1}
    slow.now += 2.0 * LISTING_SHARE - 0.1
    lister.poll(slow)
    assert slow.times == 2
    slow.now += 0.2
    lister.poll(slow)
    assert slow.times == 3


def test_unlisted_counts_stay_and_are_reported_once() -> None:
    """The kernel refuses, twice, then lists again, then refuses again."""
    slow, live = Slow(), LiveFlows(MARKS, 0)
    lister = ConnectionLister(live, slow.everything, slow.clock)
    for listed, told in (([MARKS[0]], 0), (None, 1), (None, 1), ([MARKS[0]], 1), (None, 2)):
        slow.connections = listed
        lister.poll(slow)
        assert live.read()[MARKS[0]] == 1
        assert len(slow.warnings) == told
        slow.now += LISTING
    assert slow.warnings[0] == "connections cannot be listed: Device or resource busy"

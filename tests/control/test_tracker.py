"""Live flows counted from a list and from events, whatever their order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.model import Config
from paraglider.control.live import LiveFlows, wanted
from paraglider.control.tracker import count_anew, follow
from paraglider.rules.marks import backend_marks
from paraglider.system.connections import Event

MARKS = (0x51000001, 0x51000002, 0x51800003)

events = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(MARKS)), max_size=60)


class Table:
    """A kernel's connections: what happens to them is told, and they can be listed."""

    def __init__(self) -> None:
        self.connections: dict[int, int] = {}
        self.told: list[Event] = []

    def happen(self, identity: int, mark: int) -> None:
        """The connection begins, or ends if it is there."""
        began = identity not in self.connections
        if began:
            self.connections[identity] = mark
        else:
            mark = self.connections.pop(identity)
        self.told.append(Event(began, identity, mark))

    def read(self) -> tuple[list[Event], bool]:
        """What was told since the last reading."""
        told, self.told = self.told, []
        return told, False

    def listed(self, meanwhile: list[tuple[int, int]]) -> Iterator[Event]:
        """Every connection, one after the other; something happens after each."""
        pending = list(meanwhile)
        for identity in range(13):
            if identity in self.connections:
                yield Event(True, identity, self.connections[identity])
            for _ in range(3):
                if pending:
                    self.happen(*pending.pop())
        for what in pending:
            self.happen(*what)


@given(events, events, events)
def test_counting_anew_is_exact(
    before: list[tuple[int, int]],
    meanwhile: list[tuple[int, int]],
    after: list[tuple[int, int]],
) -> None:
    """Whatever begins and ends while the kernel's list is read, the counts are the truth."""
    table, live = Table(), LiveFlows(MARKS)
    live.add(MARKS[0], 99)
    for what in before:
        table.happen(*what)
    count_anew(live, table.read, lambda: table.listed(meanwhile))
    assert +Counter(live.read()) == Counter(table.connections.values())
    for what in after:
        table.happen(*what)
    follow(live, table.read()[0])
    assert +Counter(live.read()) == Counter(table.connections.values())


def test_a_loss_while_counting_means_counting_again() -> None:
    """The list is asked for until no event was lost beside it."""
    lists = iter([[Event(True, 1, MARKS[0])], [Event(True, i, MARKS[1]) for i in range(5)]])
    losses = iter([False, True, False, False])
    live = LiveFlows(MARKS)
    count_anew(live, lambda: ([], next(losses)), lambda: next(lists))
    assert live.read() == {MARKS[0]: 0, MARKS[1]: 5, MARKS[2]: 0}


def test_marks_that_are_not_counted_are_passed_over() -> None:
    """A backend that left the file may still have connections; a count is never below zero."""
    live = LiveFlows(MARKS[:1])
    follow(live, [Event(True, 1, MARKS[1]), Event(False, 2, MARKS[0])])
    assert live.read() == {MARKS[0]: 0}
    live.replace({MARKS[0]: 3, MARKS[1]: 7})
    assert live.read() == {MARKS[0]: 3}


def test_what_one_process_counts_another_reads() -> None:
    """The memory is shared by processes that were forked before or after."""
    live = LiveFlows(MARKS)
    pid = os.fork()
    if pid == 0:
        live.add(MARKS[2], 41)
        live.add(MARKS[2], 1)
        os._exit(0)
    os.waitpid(pid, 0)
    assert live.read()[MARKS[2]] == 42


def test_only_what_a_strategy_asks_for_is_counted() -> None:
    """The backends of weighted and of policies, where they are offloaded; else nothing is."""
    base = {"vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1", "10.0.0.2"]}
    named = {
        "a": {"strategy": "weighted", "forward": "offload"},
        "b": {"strategy": "my.module:Class", "forward": "offload"},
        "c": {"strategy": "wrr", "forward": "offload"},
        "d": {"strategy": "weighted", "forward": "nat"},
    }
    services = [{"name": name, **base, **keys} for name, keys in named.items()]
    config = Config.model_validate({"services": services})
    found = wanted(config)
    assert found is not None
    marks = backend_marks(config)
    assert found.marks == {*marks["a"], *marks["b"]}
    assert wanted(Config.model_validate({"services": services[2:]})) is None

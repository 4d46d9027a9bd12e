"""Counters in shared memory are readable, whatever happens to the writer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from paraglider.daemon.shared_memory import counters
from paraglider.daemon.shared_memory.counters import (
    GAUGES,
    HEAD,
    ROW,
    Counters,
    CounterWriter,
    Sample,
    identity,
)

#: words of the memory, as the module's docstring has it
EDITION, USED = 0, 1


class Counting:
    """A source whose numbers are the test's: the worker's own, and those of backends."""

    def __init__(self, **figures: int) -> None:
        self.own = figures
        self.rows: dict[tuple[str, str], dict[str, int]] = {}

    def figures(self) -> Mapping[str, int]:
        """See ``counters.CounterSource``."""
        return self.own

    def traffic(self) -> Iterator[tuple[str, str, Mapping[str, int]]]:
        """See ``counters.CounterSource``."""
        for (service, backend), numbers in self.rows.items():
            yield service, backend, numbers


@pytest.fixture
def memory() -> Iterator[Counters]:
    """The memory of a worker."""
    made = Counters()
    yield made
    made.close()


def test_what_is_written_is_read(memory: Counters) -> None:
    """The worker's own numbers and those of its backends after one tick, no others."""
    source = Counting(packets=7, flows=2, short=1)
    source.rows["web", "10.0.0.1"] = {"conns": 3, "flows": 0}
    CounterWriter(memory, source).tick()
    sample = memory.read()
    assert {name: sample.head[name] for name in ("packets", "flows", "short")} == source.own
    assert sample.head["alive"] > 0
    assert sample.backend("web", "10.0.0.1") == {"conns": 3, "flows": 0}
    assert sample.backend("web", "10.0.0.2") == {}
    assert sample.backend("dns", "10.0.0.1") == {}
    assert sample.service("dns") == {}


def test_sums_of_some_numbers(memory: Counters) -> None:
    """By backend with any count; neither absent numbers nor removed backends are counted."""
    source = Counting()
    source.rows["web", "a"] = {"refused": 2, "timeouts": 3, "conns": 9}
    source.rows["web", "b"] = {"refused": 1}
    source.rows["web", "c"] = {"timeouts": 0, "conns": 9}
    source.rows["web", "d"] = {"refused": 7}
    writer = CounterWriter(memory, source)
    writer.tick()
    del source.rows["web", "d"]
    writer.tick()
    sums = memory.read().sums(("refused", "timeouts"))
    assert sums == {identity("web", "a"): 5, identity("web", "b"): 1}


def test_what_another_process_writes_is_read(memory: Counters) -> None:
    """The memory is shared: a child's numbers are its parent's to read after it has died."""
    source = Counting(packets=9)
    pid = os.fork()
    if pid == 0:
        CounterWriter(memory, source).tick()
        os._exit(0)
    os.waitpid(pid, 0)
    assert memory.read().head["packets"] == 9


def test_a_successor_counts_on(memory: Counters) -> None:
    """Counts of a dead worker continue, its gauges are gone."""
    source = Counting(packets=7, flows=2)
    source.rows["web", "a"] = {"conns": 3, "flows": 2}
    CounterWriter(memory, source).tick()
    source = Counting(packets=1, flows=0)
    source.rows["web", "a"] = {"conns": 1, "flows": 0}
    writer = CounterWriter(memory, source)
    assert memory.read().head["packets"] == 7
    for _ in range(2):  # the same twice is counted once
        writer.tick()
        sample = memory.read()
        assert (sample.head["packets"], sample.head["flows"]) == (8, 0)
        assert sample.backend("web", "a") == {"conns": 4, "flows": 0}


def test_counts_continue_over_a_new_source(memory: Counters) -> None:
    """If a counter's source is replaced, the count does not decrease."""
    source = Counting()
    source.rows["web", "a"] = {"conns": 5}
    writer = CounterWriter(memory, source)
    writer.tick()
    source.rows["web", "a"] = {"conns": 2}
    writer.tick()
    assert memory.read().backend("web", "a") == {"conns": 7}


def test_a_backend_that_leaves(memory: Counters) -> None:
    """It is no longer listed; its counts are added to its service, and its row is reused."""
    source = Counting()
    source.rows["web", "a"] = {"conns": 5, "flows": 1}
    source.rows["web", "b"] = {"conns": 2, "flows": 1}
    writer = CounterWriter(memory, source)
    writer.tick()
    del source.rows["web", "a"]
    writer.tick()
    sample = memory.read()
    assert sample.backend("web", "a") == {}
    assert sample.service("web") == {"conns": 7, "flows": 1}
    used = memory.words[USED]
    source.rows["web", "c"] = {"conns": 1, "flows": 0}
    writer.tick()
    assert memory.words[USED] == used
    assert memory.read().backend("web", "c") == {"conns": 1, "flows": 0}
    assert memory.read().service("web") == {"conns": 8, "flows": 1}


def test_a_backend_that_left_while_no_worker_ran(memory: Counters) -> None:
    """The successor finds the row, and that no backend has its name any more."""
    source = Counting()
    source.rows["web", "a"] = {"conns": 5}
    source.rows["web", "b"] = {"conns": 1}
    CounterWriter(memory, source).tick()
    del source.rows["web", "a"]
    source.rows["web", "b"] = {"conns": 0}
    CounterWriter(memory, source).tick()
    sample = memory.read()
    assert sample.backend("web", "a") == {}
    assert sample.service("web") == {"conns": 6}


def test_a_service_that_leaves(memory: Counters) -> None:
    """It is removed completely, also for a new one with the same name."""
    source = Counting()
    source.rows["web", "a"] = {"conns": 5}
    source.rows["dns", "a"] = {"conns": 1}
    writer = CounterWriter(memory, source)
    writer.tick()
    kept = source.rows.pop(("web", "a"))
    writer.tick()
    assert memory.read().service("web") == {}
    source.rows["web", "a"] = {**kept, "conns": 2}
    writer.tick()
    assert memory.read().service("web") == {"conns": 2}
    assert memory.read().service("dns") == {"conns": 1}


def test_many_backends_are_written_bit_by_bit(memory: Counters) -> None:
    """A tick writes a bounded number of rows; after enough ticks all are up to date."""
    source = Counting()
    for number in range(25):
        source.rows["web", f"b{number}"] = {"conns": number}
    writer = CounterWriter(memory, source, rows=10)
    writer.tick()
    assert memory.words[USED] == 10
    for _ in range(2):
        writer.tick()
    assert memory.read().service("web") == {"conns": sum(range(25))}
    source.rows["web", "b24"]["conns"] = 100
    for _ in range(3):
        writer.tick()
    assert memory.read().backend("web", "b24") == {"conns": 100}


def test_more_backends_than_rows(memory: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends without a row are not listed; the others are, and so is one that replaces them."""
    monkeypatch.setattr(counters, "MOST_ROWS", 2)
    source = Counting()
    for name in "abc":
        source.rows["web", name] = {"conns": 1}
    writer = CounterWriter(memory, source)
    writer.tick()
    assert [bool(memory.read().backend("web", name)) for name in "abc"] == [True, True, False]
    source.rows = {("dns", "d"): {"conns": 4}}
    writer.tick()
    writer.tick()
    assert memory.read().backend("dns", "d") == {"conns": 4}


def test_a_writer_that_died_among_the_rows(memory: Counters) -> None:
    """The reader returns the present content, and the successor repairs the edition."""
    source = Counting(packets=4)
    CounterWriter(memory, source).tick()
    memory.words[EDITION] += 1
    assert memory.read().head["packets"] == 4
    CounterWriter(memory, source).tick()
    assert memory.words[EDITION] % 2 == 0


def test_whatever_a_worker_writes_is_bounded(memory: Counters) -> None:
    """Any numbers are read."""
    CounterWriter(memory, Counting()).tick()
    for used in (-1, 1 << 62):
        memory.words[USED] = used
        assert isinstance(memory.read(), Sample)


def test_busy_is_a_share_of_the_time(memory: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time relative to the elapsed time, in millionths; restarted after each span."""
    clock: dict[str, Any] = {"wall": 0, "cpu": 0}
    monkeypatch.setattr(counters.time, "monotonic_ns", lambda: clock["wall"])
    monkeypatch.setattr(counters.time, "process_time_ns", lambda: clock["cpu"])
    writer = CounterWriter(memory, Counting())
    clock.update(wall=500_000_000, cpu=500_000_000)
    writer.tick()
    assert memory.read().head["busy"] == 0
    clock.update(wall=2_000_000_000)
    writer.tick()
    head = memory.read().head
    assert (head["busy"], head["cpu"], head["alive"]) == (250_000, 500_000_000, 2_000_000_000)


def test_names_have_places() -> None:
    """No name stands for two numbers, all gauges are among them, and rows and head are wide
    enough."""
    assert len(set(HEAD)) == len(HEAD)
    assert len(set(ROW)) == len(ROW)
    assert {*HEAD, *ROW} >= GAUGES
    assert len(HEAD) + 2 <= counters._ROWS
    assert len(ROW) + 2 <= counters._WIDE


def test_identities() -> None:
    """The same names give the same number, other names another, also where they join alike."""
    assert identity("web", "a") == identity("web", "a")
    assert len({identity("web", "a"), identity("weba"), identity("we", "ba"), identity("a")}) == 4

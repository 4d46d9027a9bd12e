"""Processor time is what was used between two readings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from bench.cgroup import Group
from bench.cpu import MICROSECONDS, TICKS, Meter, Reading, Used, between, softirq_threads
from paraglider.lab.namespace import Namespace

BALANCER, BACKEND, NEW, KSOFTIRQD = 11, 12, 13, 14


class Place(Namespace):
    """A namespace of a table, with the processes ``ids``."""

    def __init__(self, *ids: int) -> None:
        self.ids = ids

    def pids(self) -> list[int]:
        """See ``Namespace``."""
        return list(self.ids)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with a machine that was busy for 63 ticks, and four processes of 5 to 8 ticks."""
    directory = tmp_path / "proc"
    directory.mkdir()
    (directory / "stat").write_text("cpu  1 2 4 1000 2000 8 16 32 0 0\n")
    for ticks, (pid, name) in enumerate(
        [(BALANCER, "paraglider"), (BACKEND, "nginx"), (NEW, "wrk"), (KSOFTIRQD, "ksoftirqd/0")], 5
    ):
        (directory / str(pid)).mkdir()
        (directory / str(pid) / "comm").write_text(f"{name}\n")
        fields = f"S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 1 0 0"
        (directory / str(pid) / "stat").write_text(f"{pid} ({name}) {fields}")
    return directory


@pytest.fixture
def group(tmp_path: Path) -> Group:
    """A group that used 700 µs, and has one process of somebody else's."""
    directory = tmp_path / "group"
    directory.mkdir()
    (directory / "cgroup.procs").write_text("1\n")
    (directory / "cpu.stat").write_text("usage_usec 700\nuser_usec 700\n")
    return Group(directory)


def test_between_counts_old_and_new_processes() -> None:
    """A process that came in between counts whole, one that went does not count."""
    before = Reading({1: 100, 2: 50}, bed=1000)
    after = Reading({1: 100 + TICKS, 3: 2 * TICKS}, bed=1400)
    assert between(before, after) == Used(processes=3.0, bed=400)


def test_without_processes_there_is_no_figure() -> None:
    """What the kernel carries has no processes, which is not the same as none of their time."""
    assert between(Reading({}, 0), Reading({}, 7)) == Used(None, 7)


def test_uses_add_up() -> None:
    """Two spans add; with one that has no processes there is no sum of processes."""
    assert Used(1.0, 2.0) + Used(0.5, 1.0) == Used(1.5, 3.0)
    assert Used(None, 2.0) + Used(0.5, 1.0) == Used(None, 3.0)


def test_the_bed_is_the_group_and_the_softirq_threads(proc: Path, group: Group) -> None:
    """The kernel's threads carry packets of the bed, but are in no group of ours."""
    balancer = Place(BALANCER)
    reading = Meter(balancer, [balancer], group, proc).read()
    assert softirq_threads(proc) == [KSOFTIRQD]
    assert reading == Reading({BALANCER: 5}, 700 + 8 * MICROSECONDS)


def test_interrupts_that_no_process_is_charged_for_are_added(proc: Path, group: Group) -> None:
    """Where the kernel accounts for them apart, the group lacks them: 8 and 16 ticks."""
    (proc / "pressure").mkdir()
    (proc / "pressure" / "irq").write_text("full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    balancer = Place(BALANCER)
    assert Meter(balancer, [balancer], group, proc).read().bed == 700 + 24 * MICROSECONDS


def test_every_process_of_the_stage_is_put_into_the_group(proc: Path, tmp_path: Path) -> None:
    """Those of all namespaces when it is read, and the load when it starts."""
    moved: list[int] = []

    class Recording(Group):
        def add(self, pids: Iterable[int]) -> None:
            moved.extend(pids)

        def usage(self) -> float:
            return 0.0

    balancer = Place(BALANCER)
    meter = Meter(balancer, [balancer, Place(BACKEND)], Recording(tmp_path), proc)
    meter.read()
    meter.add(NEW)
    assert moved == [BALANCER, BACKEND, NEW]
    assert meter.source == "cgroup"


def test_without_a_group_the_bed_is_the_machine(proc: Path) -> None:
    """Everything that was not idle counts, and the results say so."""
    balancer = Place(BALANCER)
    meter = Meter(balancer, [balancer], None, proc)
    meter.add(NEW)
    assert meter.read() == Reading({BALANCER: 5}, 63 * MICROSECONDS)
    assert meter.source == "machine"


def test_a_process_that_has_ended_does_not_count(proc: Path) -> None:
    """It may end between the list and its figures."""
    balancer = Place(BALANCER, 99)
    assert Meter(balancer, [balancer], None, proc).read().processes == {BALANCER: 5}

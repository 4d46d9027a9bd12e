"""Processor time is what was used between two readings."""

from __future__ import annotations

from bench.cpu import TICKS, Reading, Used, between


def test_between_counts_old_and_new_processes() -> None:
    """A process that came in between counts whole, one that went does not count."""
    before = Reading({1: 100, 2: 50}, machine=1000)
    after = Reading({1: 100 + TICKS, 3: 2 * TICKS}, machine=1000 + 4 * TICKS)
    assert between(before, after) == Used(processes=3.0, machine=4.0)


def test_without_processes_there_is_no_figure() -> None:
    """What the kernel carries has no processes, which is not the same as none of their time."""
    assert between(Reading({}, 0), Reading({}, TICKS)) == Used(None, 1.0)


def test_uses_add_up() -> None:
    """Two spans add; with one that has no processes there is no sum of processes."""
    assert Used(1.0, 2.0) + Used(0.5, 1.0) == Used(1.5, 3.0)
    assert Used(None, 2.0) + Used(0.5, 1.0) == Used(None, 3.0)

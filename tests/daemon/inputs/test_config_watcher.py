"""The daemon's own file: what counts as a change of it, and when."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from paraglider.daemon.inputs.config_watcher import PAUSE, QUIET, ConfigWatcher


class World:
    """A file that was read, and time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._versions = itertools.count()
        self.write()
        self.own = ConfigWatcher(path)
        self._now = 1000.0

    def write(self) -> None:
        """Another version."""
        self.path.write_text("x" * next(self._versions))

    def looks(self, count: int) -> list[bool]:
        """What so many looks find."""
        found = []
        for _ in range(count):
            self._now += PAUSE
            found.append(self.own.changed(self._now))
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A file."""
    return World(tmp_path / "file")


def test_a_change_counts_once_and_when_it_is_over(world: World) -> None:
    """Not while the file is being written."""
    assert world.looks(3) == [False] * 3
    world.write()
    assert world.looks(QUIET - 1) == [False] * (QUIET - 1)
    world.write()
    assert world.looks(QUIET + 2) == [False] * (QUIET - 1) + [True, False, False]


def test_a_rename_into_its_place_counts(world: World) -> None:
    """As editors do it; while there is none nothing does."""
    other = world.path.with_name("other")
    other.write_text("")
    world.path.unlink()
    assert world.looks(QUIET + 1) == [False] * (QUIET + 1)
    other.rename(world.path)
    assert world.looks(QUIET)[-1]


def test_what_was_read_meanwhile_is_no_change(world: World) -> None:
    """Whoever had it read."""
    world.write()
    world.own.note()
    assert world.looks(QUIET + 1) == [False] * (QUIET + 1)


def test_it_is_looked_at_now_and_then(world: World) -> None:
    """However often it is asked for."""
    assert not world.own.changed(1e6)
    world.write()
    assert not any(world.own.changed(1e6 + PAUSE * n / 1000) for n in range(1000))
    assert world.own.wait(1e6 + PAUSE / 4) == PAUSE * 3 / 4

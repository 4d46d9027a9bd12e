"""Polled files: when a change counts, and when it is reported."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import TIMEOUT

from paraglider.host import file_watch
from paraglider.host.file_watch import PAUSE, QUIET, FilePoller, FileWatch


class World:
    """A file that was read, and time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._versions = itertools.count()
        self.write()
        self.poller = FilePoller([path])
        self._now = 1000.0

    def write(self) -> None:
        """Write another version."""
        self.path.write_text("x" * next(self._versions))

    def polls(self, count: int) -> list[bool]:
        """The results of ``count`` polls."""
        found = []
        for _ in range(count):
            self._now += PAUSE
            found.append(self.poller.changed(self._now) == [str(self.path)])
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A file."""
    return World(tmp_path / "file")


def test_a_change_counts_once_and_when_it_is_over(world: World) -> None:
    """A file that is still being written does not count."""
    assert world.polls(3) == [False] * 3
    world.write()
    assert world.polls(QUIET - 1) == [False] * (QUIET - 1)
    world.write()
    assert world.polls(QUIET + 2) == [False] * (QUIET - 1) + [True, False, False]


def test_a_file_that_is_replaced_by_rename(world: World) -> None:
    """As editors do it; while the file is missing nothing counts."""
    other = world.path.with_name("other")
    other.write_text("")
    world.path.unlink()
    assert world.polls(QUIET + 1) == [False] * (QUIET + 1)
    other.rename(world.path)
    assert world.polls(QUIET)[-1]


def test_what_was_read_meanwhile_is_no_change(world: World) -> None:
    """A reload by another cause counts as reading."""
    world.write()
    world.poller.mark_read()
    assert world.polls(QUIET + 1) == [False] * (QUIET + 1)


def test_it_is_polled_now_and_then(world: World) -> None:
    """At most once per PAUSE, however often ``changed`` is called."""
    assert not world.poller.changed(1e6)
    world.write()
    assert not any(world.poller.changed(1e6 + PAUSE * n / 1000) for n in range(1000))
    assert world.poller.wait(1e6 + PAUSE / 4) == PAUSE * 3 / 4


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "PAUSE", 0.02)


def told_of(files: list[Path], *steps: Callable[[], object]) -> list[str]:
    """The reported changes of ``files`` for each of ``steps``; before these, all files are
    reported.
    """

    async def scenario() -> list[str]:
        told: list[str] = []
        watch = FileWatch([str(file) for file in files], told.append)
        running = asyncio.create_task(watch.run())
        await asyncio.sleep(0)
        assert told == [str(file) for file in files]
        told.clear()
        for number, step in enumerate(steps, 1):
            step()
            async with asyncio.timeout(TIMEOUT):
                while len(told) < number:
                    await asyncio.sleep(0.01)
        watch.stop()
        async with asyncio.timeout(TIMEOUT):
            await running
        return told

    return asyncio.run(scenario())


@pytest.mark.usefixtures("_quick")
def test_what_changes(tmp_path: Path) -> None:
    """A file that is written, replaced, removed and made anew is told each time, others are not."""
    file, other = tmp_path / "web", tmp_path / "api"
    file.write_text("1")
    other.write_text("1")

    def replaced() -> None:
        new = tmp_path / "new"
        new.write_text("another")
        new.replace(file)

    told = told_of([file, other], lambda: file.write_text("22"), replaced, file.unlink, file.touch)
    assert told == [str(file)] * 4


@pytest.mark.usefixtures("_quick")
def test_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    """A link whose own target is exchanged is another file (as Kubernetes updates volumes)."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "web").write_text(name)
    data, file = tmp_path / "data", tmp_path / "web"
    data.symlink_to("one")
    file.symlink_to("data/web")

    def swapped() -> None:
        new = tmp_path / "new"
        new.symlink_to("two")
        os.replace(new, data)  # noqa: PTH105 - the link itself

    assert told_of([file], swapped) == [str(file)]


@pytest.mark.usefixtures("_quick")
def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """It is looked for at each poll, and what appears in it is told."""
    file = tmp_path / "later" / "web"

    def appears() -> None:
        file.parent.mkdir()
        file.touch()

    assert told_of([file], appears, lambda: file.write_text("22")) == [str(file)] * 2

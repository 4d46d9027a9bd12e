"""Tests of ``paraglider.host.file_watch``: whatever makes a file another one is told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from paraglider.host import file_watch
from paraglider.host.file_watch import FileWatch

PATIENCE = 20


def told_of(files: list[Path], *steps: Callable[[], object]) -> list[str]:
    """What is told of ``files`` as each of ``steps`` is done and told of; before, all are told."""

    async def scenario() -> list[str]:
        told: list[str] = []
        watch = FileWatch([str(file) for file in files], told.append)
        running = asyncio.create_task(watch.run())
        await asyncio.sleep(0)
        assert told == [str(file) for file in files]
        told.clear()
        for number, step in enumerate(steps, 1):
            step()
            async with asyncio.timeout(PATIENCE):
                while len(told) < number:
                    await asyncio.sleep(0.01)
        watch.stop()
        async with asyncio.timeout(PATIENCE):
            await running
        return told

    return asyncio.run(scenario())


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


def test_a_directory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for now and then, and what appears in it is told."""
    monkeypatch.setattr(file_watch, "POLL", 0.05)
    file = tmp_path / "later" / "web"

    def appears() -> None:
        file.parent.mkdir()
        file.touch()

    assert told_of([file], appears, lambda: file.write_text("22")) == [str(file)] * 2

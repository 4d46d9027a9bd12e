"""Mapped memory of a file that is truncated: the process survives, and can map the file again."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import descriptors

from paraglider.host.mapped import Mapped

PAGES = 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Some pages of ones."""
    path = tmp_path / "file"
    path.write_bytes(b"\1" * PAGES * mmap.PAGESIZE)
    return path


def mapped(path: Path) -> Mapped:
    """``path``, as its writer has it."""
    handle = os.open(path, os.O_RDWR)
    try:
        return Mapped(handle)
    finally:
        os.close(handle)


def state(memory: Mapped) -> tuple[bool, bool]:
    """Whether its file is cut, and whether a page was missed."""
    return memory.cut, memory.lost


def test_what_is_written_is_in_the_file(file: Path) -> None:
    """A file that is not truncated has everything that was written."""
    memory = mapped(file)
    memory.memory[5] = 7
    assert file.read_bytes()[4:7] == b"\1\7\1"
    assert state(memory) == (False, False)


@pytest.mark.parametrize("length", [0, 1, mmap.PAGESIZE, 2 * mmap.PAGESIZE + 1])
def test_a_file_that_is_cut(file: Path, length: int) -> None:
    """At any length reads and writes succeed and set the flag; the remaining pages are kept."""
    memory = mapped(file)
    view = memoryview(memory.memory)
    os.truncate(file, length)
    assert state(memory) == (True, False)
    kept = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
    for at in range(0, PAGES * mmap.PAGESIZE, mmap.PAGESIZE):
        view[at] = 9
    assert state(memory) == (True, True)
    assert [view[at] for at in range(0, len(view), mmap.PAGESIZE)] == [9] * PAGES
    assert view[kept + 1] == 0
    assert file.stat().st_size == length


def test_a_file_that_is_cut_is_restored(file: Path) -> None:
    """At the same address, so views stay valid, and after every truncation."""
    memory = mapped(file)
    view = memoryview(memory.memory)
    for value in (3, 4):
        os.truncate(file, 0)
        view[-1] = 1
        assert state(memory) == (True, True)
        memory.restore()
        assert state(memory) == (False, False)
        view[-1] = value
        assert file.read_bytes() == bytes(PAGES * mmap.PAGESIZE - 1) + bytes((value,))


def test_two_files_do_not_meet(file: Path, tmp_path: Path) -> None:
    """A truncation of one file does not affect the other."""
    other = tmp_path / "other"
    other.write_bytes(file.read_bytes())
    first, second = mapped(file), mapped(other)
    os.truncate(file, 0)
    first.memory[0] = 5
    second.memory[0] = 6
    assert (first.lost, second.lost) == (True, False)
    assert other.read_bytes()[0] == 6


def test_a_closed_mapping_closes_its_descriptor(file: Path) -> None:
    """Its descriptor is closed with it."""
    before = descriptors()
    memory = mapped(file)
    assert descriptors() > before
    del memory
    assert descriptors() == before


def test_any_other_missing_page_ends_the_process(file: Path, tmp_path: Path) -> None:
    """As without the handler."""
    script = (
        "import mmap, os, sys\n"
        "from paraglider.host.mapped import Mapped\n"
        "mine = Mapped(os.open(sys.argv[1], os.O_RDWR))\n"
        "other = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 0)\n"
        "os.truncate(sys.argv[1], 0)\n"
        "mine.memory[0] = 1\n"
        "os.truncate(sys.argv[2], 0)\n"
        "other[0] = 1\n"
    )
    other = tmp_path / "other"
    other.write_bytes(b"1")
    done = subprocess.run([sys.executable, "-c", script, file, other], check=False)
    assert done.returncode == -signal.SIGBUS

"""Reading the kernel's table of queues, and refusing queues that have a reader."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paraglider.errors import OperatorError, PlatformError
from paraglider.netfilter.queue.proc import QueueStatus, queue_status, require_free

# As the kernel prints it: right-aligned columns, the last two are of no interest.
LINE = "{number:5} {port:6} {waiting:5} 2 {copy:5} {dropped:5} {user:5} {last:8}  1\n"


def table_with(directory: Path, *rows: QueueStatus) -> Path:
    """A file as the kernel would print ``rows``."""
    path = directory / "nfnetlink_queue"
    path.write_text(
        "".join(
            LINE.format(
                number=row.number,
                port=row.port,
                waiting=row.waiting,
                copy=row.copy_range,
                dropped=row.queue_dropped,
                user=row.user_dropped,
                last=99,
            )
            for row in rows
        )
    )
    return path


def test_every_column_has_its_name(tmp_path: Path) -> None:
    """Each number of a line has its own name."""
    rows = (QueueStatus(0, 4242, 3, 65531, 7, 8), QueueStatus(65535, 4294963200, 0, 4016, 0, 0))
    assert queue_status(table_with(tmp_path, *rows)) == {row.number: row for row in rows}


def test_no_queue_no_line(tmp_path: Path) -> None:
    """An empty table means that no queue has a reader."""
    assert queue_status(table_with(tmp_path)) == {}


def test_a_kernel_without_nfqueue(tmp_path: Path) -> None:
    """If the table is missing the message names the module to load, and the exit code is 2."""
    with pytest.raises(PlatformError, match="no NFQUEUE.*modprobe nfnetlink_queue") as caught:
        queue_status(tmp_path / "missing")
    assert caught.value.exit_code == 2


def test_free_queues_are_free(tmp_path: Path) -> None:
    """Readers of other queues are ignored."""
    require_free((0, 1), table_with(tmp_path, QueueStatus(2, 1, 0, 0, 0, 0)))


def test_a_reader_is_named(tmp_path: Path) -> None:
    """The port id is the reader's process id, so the message names the process and the remedy."""
    name = Path("/proc/self/comm").read_text().strip()
    table = table_with(tmp_path, QueueStatus(1, os.getpid(), 0, 0, 0, 0))
    with pytest.raises(OperatorError) as caught:
        require_free((0, 1), table)
    assert caught.value.what == f"queue 1 already has a reader: process {os.getpid()} ({name})"
    assert "other cores under `workers`" in caught.value.remedy


def test_a_reader_of_several_queues_is_named(tmp_path: Path) -> None:
    """One of the sockets has the process id, at any place in the kernel's table."""
    name = Path("/proc/self/comm").read_text().strip()
    rows = [QueueStatus(4096, 4294963200, 0, 0, 0, 0), QueueStatus(0, os.getpid(), 0, 0, 0, 0)]
    with pytest.raises(OperatorError) as caught:
        require_free((0, 4096), table_with(tmp_path, *rows))
    assert (
        caught.value.what == f"queue 0, 4096 already has a reader: process {os.getpid()} ({name})"
    )


def test_a_reader_that_is_no_process(tmp_path: Path) -> None:
    """A port that is no process id is named as the port that it is."""
    table = table_with(tmp_path, QueueStatus(0, 4294963200, 0, 0, 0, 0))
    with pytest.raises(OperatorError, match="queue 0 .* netlink port 4294963200"):
        require_free((0,), table)


def test_all_taken_queues_are_listed(tmp_path: Path) -> None:
    """The error lists all queues that have a reader."""
    rows = [QueueStatus(number, 1, 0, 0, 0, 0) for number in (0, 2, 3)]
    with pytest.raises(OperatorError, match="queue 0, 3 already"):
        require_free((0, 1, 3), table_with(tmp_path, *rows))

"""A worker's flows carried on: from its own journal, from others', or not, with a word about it."""

from __future__ import annotations

import errno
import os
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.workers.journals import Journals, carry_on
from paraglider.forward.worker_datapath import WorkerDatapath, build
from paraglider.host.journal_files import JournalFiles
from paraglider.host.mapped import Mapped

CLIENT = bytes((192, 168, 0, 100))
VIP = bytes((192, 168, 0, 11))
BEGIN = time.monotonic() - 60.0  # a minute before each test


@pytest.fixture(autouse=True)
def _a_minute_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows older than their timeouts are not restored, and a whole run takes minutes."""
    monkeypatch.setitem(globals(), "BEGIN", time.monotonic() - 60.0)


def config(forward: str = "nat", backends: int = 3) -> Config:
    """One service."""
    service = {
        "name": "web",
        "vip": "192.168.0.11/24",
        "protocol": "tcp",
        "ports": 80,
        "forward": forward,
        "backends": [f"10.0.0.{n + 1}" for n in range(backends)],
    }
    return Config.model_validate({"services": [service]})


def handled(path: WorkerDatapath, client_port: int, flags: int = 2) -> bytes:
    """The backend's address that a segment to the VIP (by default a SYN) is given."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + CLIENT + VIP
    segment = struct.pack("!HHIIBBHHH", client_port, 80, 0, 0, 0x50, flags, 0, 0, 0)
    packet = bytearray(head + segment)
    path.handle(packet, 0, 40, 0, BEGIN + 1.0)
    return bytes(packet[16:20])


@pytest.fixture
def files(tmp_path: Path) -> JournalFiles:
    """A worker's."""
    return JournalFiles(1, "two", 0, 100, tmp_path)


def begins(files: JournalFiles, path: WorkerDatapath) -> tuple[Journals, list[Any]]:
    """A worker with ``path`` begins: its journals, and what it logged."""
    with capture_logs() as logged:
        journals = carry_on(path, files, log.logger())
    return journals, [dict(line) for line in logged]


def lives(files: JournalFiles, wanted: Config | None = None) -> tuple[WorkerDatapath, list[Any]]:
    """A worker begins: its packet path, and what it logged."""
    path = build(wanted or config(), 0, 0.0)
    return path, begins(files, path)[1]


def looks(journals: Journals, *times: float) -> list[str]:
    """What the worker's log says when it looks at these times, in seconds from ``BEGIN`` on."""
    with capture_logs() as logged:
        for seconds in times:
            journals.check(BEGIN + seconds)
    return [line["event"] for line in logged]


@pytest.mark.parametrize("length", [0, 4096, 100_000])
@pytest.mark.parametrize("forward", ["nat", "dsr"])
def test_a_journal_that_is_cut_at_work(files: JournalFiles, forward: str, length: int) -> None:
    """The worker serves on, writes all of its flows anew, and says so once; the next one has
    them, and those that began in between.
    """
    roomy = replace(files, records=10_000)
    path = build(config(forward), 0, BEGIN)
    journals, _ = begins(roomy, path)
    for port in range(30000, 34000):
        handled(path, port)
    assert looks(journals, 1.0) == []
    os.truncate(roomy.path(forward), length)
    for port in range(34000, 35000):
        handled(path, port)
    path.expire(BEGIN + 1.1, 10)
    said = looks(journals, 1.1, 1.2, 1.6, 2.2)
    assert said == ["journal damaged, rewritten"]
    handled(path, 40000)
    assert looks(journals, 3.0) == []
    del path, journals
    _, (line,) = lives(roomy, config(forward))
    assert (line["event"], line["flows"]) == ("flows restored", 5001)


def test_a_journal_that_cannot_be_written_anew(
    files: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/run is full: told once, tried again now and then, and the worker serves meanwhile."""
    path = build(config(), 0, BEGIN)
    journals, _ = begins(files, path)
    os.truncate(files.path("nat"), 0)
    handled(path, 40000)

    def refuse(_: Mapped) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Mapped, "restore", refuse)
        assert looks(journals, 1.0, 1.1, 2.0, 6.0, 6.1) == ["journal damaged, cannot be rewritten"]
        handled(path, 40001)
    assert looks(journals, 10.9) == []
    assert looks(journals, 11.0) == ["journal damaged, rewritten"]
    del path, journals
    assert lives(files)[1][0]["flows"] == 2


def test_a_worker_carries_on(files: JournalFiles) -> None:
    """The same client's segments go to the same backends; a first start says nothing."""
    path, logged = lives(files)
    assert logged == []
    before = [handled(path, port) for port in (40000, 40001, 40002)]
    assert len(set(before)) == 3
    del path
    path, (line,) = lives(files)
    assert (line["event"], line["table"], line["flows"]) == ("flows restored", "nat", 3)
    assert [handled(path, port, 16) for port in (40000, 40001, 40002)] == before


def test_what_is_left_out_is_told(files: JournalFiles) -> None:
    """Flows of a backend that is no longer configured."""
    path, _ = lives(files)
    for port in range(40000, 40006):
        handled(path, port)
    del path
    _, (line,) = lives(files, config(backends=2))
    assert (line["flows"], line["unknown"]) == (4, 2)


def test_other_cores(files: JournalFiles) -> None:
    """Each worker takes over the flows of all; once, also when it is replaced later."""
    old = [replace(files, core=core) for core in (0, 1)]
    before = {}
    for core, port in enumerate((40000, 40001)):
        path, _ = lives(old[core])
        before[port] = handled(path, port)
        del path
    new = [replace(files, steering="three", core=core) for core in (0, 1, 2)]
    for each in new:
        path, (line,) = lives(each)
        assert line["flows"] == 2
        assert {port: handled(path, port, 16) for port in before} == before
        del path
    new[0].remove_others()
    assert [lives(each)[1][0]["flows"] for each in new] == [2, 2, 2]


def test_a_damaged_journal_is_told_of(files: JournalFiles) -> None:
    """The worker begins with no flows, in a journal that the next one finds."""
    files.path("nat").write_bytes(b"this is not what you are looking for" * 10)
    path, (line,) = lives(files)
    assert (line["event"], line["why"]) == ("journal not used", "it is no journal")
    handled(path, 40000)
    del path
    assert lives(files)[1][0]["flows"] == 1


def test_a_damaged_journal_of_another_is_told_of(files: JournalFiles) -> None:
    """The others' flows are restored all the same."""
    path, _ = lives(files)
    handled(path, 40000)
    del path
    replace(files, core=1).path("nat").write_bytes(b"")
    _, logged = lives(replace(files, steering="three"))
    assert [line["event"] for line in logged] == ["journal not used", "flows restored"]


def test_without_a_journal_the_worker_serves(files: JournalFiles) -> None:
    """A directory that cannot be, or a file that another has: a warning, and packets pass."""
    nowhere = replace(files, directory=Path("/proc/nowhere"))
    path, (line,) = lives(nowhere)
    assert line["event"] == "flows will not survive this worker"
    assert line["log_level"] == "warning"
    assert handled(path, 40000) != VIP
    first, _ = lives(files)
    second, (line,) = lives(files)
    assert line["event"] == "flows will not survive this worker"
    assert handled(second, 40000) != VIP
    del first


def test_where_the_kernel_has_the_flows_there_is_no_journal(files: JournalFiles) -> None:
    """Offload needs none."""
    assert lives(files, config("offload"))[1] == []
    assert list(files.directory.iterdir()) == []

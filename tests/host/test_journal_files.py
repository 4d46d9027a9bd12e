"""The files of journals: found again as they were, replaced when they cannot be used, removed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from paraglider.config.model import Config
from paraglider.core.journal import HEADER, PORTION, RECORD, Journal, size_of
from paraglider.host import mapped as module
from paraglider.host.journal_files import (
    REMOVED,
    JournalFiles,
    files_for,
    leftovers,
    resteered,
    steering_of,
)
from paraglider.host.ownership import netns_cookie

KEY = bytes(range(12))
NAME = b"to-web-1"


@pytest.fixture
def files(tmp_path: Path) -> JournalFiles:
    """The files of a worker with at most ten flows."""
    return JournalFiles(0xC0, "s1", 3, 10, tmp_path / "run")


def written(files: JournalFiles, table: str = "nat") -> Path:
    """Write a flow down, as a worker that has ended since; the file."""
    opened = files.open(table)
    assert opened.journal.write(NAME, KEY, 2) == 1
    opened.journal.complete = True
    return files.path(table)


def flows(journal: Journal) -> list[bytes]:
    """The identities of the flows in it."""
    return [identity for _, _, identity, _ in journal.read()]


def test_a_journal_is_found_as_it_was_left(files: JournalFiles) -> None:
    """Only root can read it, and its name has all parameters that must agree."""
    path = written(files)
    assert path.name == "flows-c0-s1-nat-3"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = files.open("nat")
    assert (flows(again.journal), again.fault, again.journal.complete) == ([NAME], None, True)


def test_a_new_journal_is_empty_and_takes_no_memory(files: JournalFiles) -> None:
    """A million records are a hole, until they are used: then memory comes by the portion."""
    large = replace(files, records=1_000_000)
    opened = large.open("nat")
    path = large.path("nat")
    assert (opened.fault, opened.journal.complete, flows(opened.journal)) == (None, False, [])
    assert path.stat().st_size == size_of(1_000_000)
    assert path.stat().st_blocks * 512 <= 64 * 1024
    opened.journal.write(NAME, KEY, 2)
    assert size_of(PORTION) <= path.stat().st_blocks * 512 <= 2 * size_of(PORTION)


def test_each_table_has_its_own(files: JournalFiles) -> None:
    """Records of one table are not in the other."""
    written(files, "nat")
    assert flows(files.open("dsr").journal) == []


def test_one_writer(files: JournalFiles) -> None:
    """While a process has a journal no other can open or replace it."""
    first = files.open("nat")
    with pytest.raises(BlockingIOError):
        files.open("nat")
    assert first.journal.write(NAME, KEY, 2)
    del first
    assert flows(files.open("nat").journal) == [NAME]


@pytest.mark.parametrize(
    ("size", "at", "value", "fault"),
    [
        (0, 0, b"", "it is cut"),
        (HEADER - 1, 0, b"", "it is cut"),
        (HEADER + 1, 0, b"", "it is cut"),
        (None, 0, b"garbage", "it is no journal"),
        (None, 8, b"\x07", "it is of another version (7, 48 bytes a flow)"),
        (None, 30, b"elsewhere", "it is of an earlier boot"),
        (None, 20, b"\xff\xff\xff\xff", "it is damaged"),
    ],
    ids=["empty", "header", "records", "garbage", "version", "boot", "highest"],
)
def test_what_cannot_be_used_is_replaced(
    files: JournalFiles, size: int | None, at: int, value: bytes, fault: str
) -> None:
    """With any damage there is an empty journal, and the reason."""
    path = written(files)
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content[:size])
    other = replace(files, steering="s2")
    assert list(other.others("nat")) == [(path, fault)]
    opened = files.open("nat")
    assert (opened.fault, flows(opened.journal)) == (fault, [])
    assert opened.journal.write(NAME, KEY, 2) == 1


def cut(path: Path) -> None:
    """Cut it in the midst of its records."""
    os.truncate(path, HEADER + RECORD)


def overwrite(path: Path) -> None:
    """Write over its head, without another length."""
    with path.open("r+b") as file:
        file.write(b"garbage")


@pytest.mark.parametrize(
    "harm", [cut, overwrite, lambda path: os.truncate(path, 0)], ids=["cut", "garbage", "empty"]
)
def test_a_file_that_is_damaged_at_work(files: JournalFiles, harm: Callable[[Path], None]) -> None:
    """The writer survives any damage and rewrites the file, which is intact afterwards."""
    large = replace(files, records=3 * PORTION)
    opened = large.open("nat")
    opened.journal.complete = True
    numbers = [opened.journal.write(NAME, KEY, 2) for _ in range(2 * PORTION)]
    found = [opened.damaged]
    harm(large.path("nat"))
    found.append(opened.damaged)
    assert found == [False, True]
    for number in numbers:
        opened.journal.erase(number)
    assert opened.journal.write(NAME, KEY, 2)
    opened.reset()
    assert (opened.damaged, opened.incomplete, opened.journal.complete) == (False, False, False)
    assert flows(opened.journal) == []
    assert opened.journal.write(b"to-web-2", KEY, 2) == 1
    opened.journal.complete = True
    del opened
    again = large.open("nat")
    assert (flows(again.journal), again.fault, again.journal.complete) == (
        [b"to-web-2"],
        None,
        True,
    )


def test_links_that_were_written_over(files: JournalFiles) -> None:
    """Garbage among the records leads to no place outside of them."""
    opened = files.open("nat")
    numbers = [opened.journal.write(NAME, KEY, 2) for _ in range(4)]
    for number in numbers[:3]:
        opened.journal.erase(number)
    with files.path("nat").open("r+b") as file:
        file.seek(HEADER)
        file.write(b"\xff" * 3 * RECORD)
    assert [opened.journal.write(NAME, KEY, 2) for _ in range(3)] == [3, 5, 6]


def test_more_flows_than_before(files: JournalFiles) -> None:
    """The file grows and keeps its records; it never shrinks."""
    written(files)
    more = replace(files, records=12)
    opened = more.open("nat")
    assert (flows(opened.journal), opened.journal.records) == ([NAME], 12)
    del opened
    assert files.open("nat").journal.records == 12


def test_of_another_steering(files: JournalFiles) -> None:
    """Other workers read its records of the table without changing it; later it is removed."""
    path = written(files)
    before = path.read_bytes()
    written(files, "dsr")
    new = replace(files, steering="s2", core=4)
    ((where, journal),) = new.others("nat")
    assert where == path
    assert isinstance(journal, Journal)
    assert flows(journal) == [NAME]
    journal.erase(1)
    assert path.read_bytes() == before
    kept = written(new)
    assert next(files.others("nat"))[0] == kept
    new.remove_others()
    assert list(new.directory.iterdir()) == [kept]


def test_journals_in_use_are_another_daemons(tmp_path: Path) -> None:
    """One for the other family or on other cores: they stay, and say nothing of our steering."""
    before, after = (config(affinity) for affinity in ("flow", "client"))
    files = JournalFiles(netns_cookie(), steering_of(before, (0, 1)), 0, 9, tmp_path)
    path = written(files)
    in_use = files.open("nat")
    ours = replace(files, steering=steering_of(after, (0, 1)))
    assert not resteered(after, (0, 1), tmp_path)
    ours.remove_others()
    assert path.exists()
    del in_use
    assert resteered(after, (0, 1), tmp_path)
    ours.remove_others()
    assert not path.exists()


def test_namespaces_do_not_meet(files: JournalFiles) -> None:
    """A journal of another network namespace is ignored."""
    path = written(files)
    elsewhere = replace(files, cookie=0xC1, steering="s2")
    assert list(elsewhere.others("nat")) == []
    elsewhere.remove_others()
    assert path.exists()


def test_leftovers_are_this_namespaces(files: JournalFiles) -> None:
    """Undoing removes every journal of this namespace and no other file."""
    here = replace(files, cookie=netns_cookie())
    mine = {written(here, "nat"), written(here, "dsr")}
    written(files)
    (files.directory / f"setup-{netns_cookie():x}.json").write_text("{}")
    assert set(leftovers(files.directory)) == mine


def test_no_room_for_a_file(files: JournalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises, and leaves no partial file; later portions are refused without raising."""
    populate = module._POPULATE_WRITE
    monkeypatch.setattr(module, "_POPULATE_WRITE", 0xBAD)  # which the kernel refuses
    with pytest.raises(OSError, match="Invalid argument"):
        files.open("nat")
    assert list(files.directory.iterdir()) == []
    monkeypatch.setattr(module, "_POPULATE_WRITE", populate)
    journal = files.open("nat").journal
    monkeypatch.setattr(module, "_POPULATE_WRITE", 0xBAD)
    assert journal.write(NAME, KEY, 2) == 0
    assert flows(journal) == []


def config(*affinities: str) -> Config:
    """A configuration with an IPv4 service for each affinity."""
    services = [
        {
            "name": f"web{number}",
            "vip": "192.168.0.11/24",
            "protocol": "tcp",
            "ports": 80 + number,
            "affinity": affinity,
            "backends": ["10.0.0.1"],
        }
        for number, affinity in enumerate(affinities)
    ]
    return Config.model_validate({"services": services, "flows": {"max": 77}})


def test_what_steering_contains() -> None:
    """The cores, in their order, and whether ports are hashed; not the services themselves."""
    base = steering_of(config("flow"), (0, 1))
    assert steering_of(config("flow", "flow"), (0, 1)) == base
    others = [
        steering_of(config("flow"), (0,)),
        steering_of(config("flow"), (0, 2)),
        steering_of(config("flow", "client"), (0, 1)),
        *(steering_of(config("flow").model_copy(update={"seed": n}), (0, 1)) for n in (1, 2)),
    ]
    assert len({base, *others}) == 6
    assert "-" not in base


def test_flows_are_resteered_if_there_are_journals_of_another_steering(tmp_path: Path) -> None:
    """Of this network namespace: until they are removed, when all workers have restored theirs."""
    before, after = (config(affinity) for affinity in ("flow", "client"))
    for cookie in (netns_cookie(), 0xC1):
        files = JournalFiles(cookie, steering_of(before, (0, 1)), 0, 9, tmp_path)
        written(files)
        expected = cookie == netns_cookie()
        assert resteered(after, (0, 1), tmp_path) == expected
        assert resteered(before, (0,), tmp_path) == expected
        assert not resteered(before, (0, 1), tmp_path)
        replace(files, steering=steering_of(after, (0, 1))).remove_others()
        assert not resteered(after, (0, 1), tmp_path)


def test_files_for_each_worker() -> None:
    """One set per core, with room for all flows of a worker."""
    found = files_for(config("flow"), (2, 5))
    assert [(files.core, files.records) for files in found] == [(2, 77), (5, 77)]
    assert {files.cookie for files in found} == {netns_cookie()}


#: writes flows until there is no memory, in a mount namespace of its own
FILL = """\
import subprocess, sys
from pathlib import Path
from paraglider.host.journal_files import JournalFiles
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", sys.argv[1]], check=True)
journal = JournalFiles(1, "s", 0, 1_000_000, Path(sys.argv[1])).open("nat").journal
written = sum(bool(journal.write(b"to-web-1", bytes(12), 2)) for _ in range(100_000))
print(written, journal.unwritten)
"""


@pytest.mark.root
def test_a_full_file_system(tmp_path: Path) -> None:
    """Flows are carried on unwritten: a page that is missing would end the process by SIGBUS."""
    command = ["unshare", "--mount", sys.executable, "-c", FILL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written, unwritten = map(int, done.stdout.split())
    assert 4 * PORTION < written < 2**20 / RECORD
    assert written + unwritten == 100_000


def test_what_is_held_outlives_its_name(files: JournalFiles) -> None:
    """A removed file is read by the successor, and replaced; other files are not."""
    written(files)
    files.held.renew({"nat": files.path("nat"), "dsr": files.path("dsr")})
    assert files.held.fault("nat") is None
    assert files.held.fault("dsr") == "there is none"
    assert list(files.others("nat")) == []
    files.path("nat").unlink()
    assert files.held.fault("nat") == REMOVED
    assert not files.open("nat").journal.complete
    ((_, found),) = files.others("nat")
    assert isinstance(found, Journal)
    assert flows(found) == [NAME]
    files.held.renew({"nat": files.path("nat")})
    assert files.held.fault("nat") is None
    files.held.close()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64])
def test_a_damaged_file_in_use_is_reported(files: JournalFiles, damage: bytes) -> None:
    """Cut to nothing, or written over: the next worker would find nothing."""
    files.open("nat")
    files.held.renew({"nat": files.path("nat")})
    files.path("nat").write_bytes(damage)
    assert files.held.fault("nat") == "it was damaged"
    files.held.close()

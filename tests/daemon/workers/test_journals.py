"""A worker's flows carried on: from its own journal, from others', or not, with a word about it."""

from __future__ import annotations

import errno
import gc
import os
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from paraglider.config.model import Config
from paraglider.core.compact import allow_compact
from paraglider.core.flow import TCP
from paraglider.core.flow_states import ESTABLISHED
from paraglider.core.hmark import WorkerShare
from paraglider.core.strategies import STRATEGIES
from paraglider.core.unread import AT_ONCE
from paraglider.daemon import log
from paraglider.daemon.workers.journals import RESTORED_A_TICK, Journals, restore_flows
from paraglider.forward.flows import Match
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


def every(_table: str) -> WorkerShare:
    """The share of the only worker."""
    return WorkerShare(0, 1, 0)


def begins(
    files: JournalFiles, path: WorkerDatapath, share: WorkerShare | None = None
) -> tuple[Journals, list[Any]]:
    """Start a worker with ``path``, and let it restore all flows of its ``share``; returns its
    journals and its log lines.
    """
    with capture_logs() as logged:
        journals = restore_flows(path, files, lambda name: share or every(name), log.logger())
        while any(table.unread is not None for table in path.tables.values()):
            journals.restore_some(time.monotonic())
    return journals, [dict(line) for line in logged]


def lives(
    files: JournalFiles, wanted: Config | None = None, share: WorkerShare | None = None
) -> tuple[WorkerDatapath, list[Any]]:
    """Start a worker; returns its packet path and its log lines."""
    path = build(wanted or config(), 0, 0.0)
    return path, begins(files, path, share)[1]


def looks(journals: Journals, *times: float) -> list[str]:
    """The log lines of ticks at these times, in seconds from ``BEGIN``."""
    with capture_logs() as logged:
        for seconds in times:
            journals.check(BEGIN + seconds)
    return [line["event"] for line in logged]


@pytest.mark.parametrize("length", [0, 4096, 100_000])
@pytest.mark.parametrize("forward", ["nat", "dsr"])
def test_a_journal_that_is_cut_at_work(files: JournalFiles, forward: str, length: int) -> None:
    """The worker continues, writes all its flows again, and logs it once; its successor has them,
    and flows that began in between.
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


def test_compact_flows_are_expanded_before_their_journal_is_rewritten(files: JournalFiles) -> None:
    """It has their keys: some with each tick, and none is made compact meanwhile."""
    flows = 2 * RESTORED_A_TICK + 1
    roomy = replace(files, records=10_000)
    path = build(config("nat"), 0, BEGIN)
    journals, _ = begins(roomy, path)
    table = path.tables["nat"]
    allow_compact(table)
    for port in range(30000, 30000 + flows):
        handled(path, port)
    compact = table.compact[0]
    every = list(table.forward[TCP].values())
    for flow in every:
        table.move(flow, ESTABLISHED, BEGIN)
        assert compact.add(flow)
    assert list(table.forward[TCP].values()) == []
    handle = os.open(roomy.path("nat"), os.O_WRONLY)
    os.pwrite(handle, bytes(8), 0)  # its head
    os.close(handle)
    assert looks(journals, 1.0, 1.05, 1.1) == []
    assert (len(list(table.forward[TCP].values())), len(table)) == (flows, flows)
    assert not compact.add(next(iter(table.forward[TCP].values())))
    assert looks(journals, 1.15) == ["journal damaged, rewritten"]
    assert compact.add(next(iter(table.forward[TCP].values())))
    del path, journals, table, compact, every, flow
    gc.collect()  # compact flows and their table refer to each other
    _, (line,) = lives(roomy, config("nat"))
    assert (line["event"], line["flows"]) == ("flows restored", flows)


def test_a_journal_that_cannot_be_rewritten(
    files: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If /run is full: one log line, retried from time to time, and the worker continues."""
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
    """Segments of the same client go to the same backends; a first start logs nothing."""
    path, logged = lives(files)
    assert logged == []
    before = [handled(path, port) for port in (40000, 40001, 40002)]
    assert len(set(before)) == 3
    del path
    path, (line,) = lives(files)
    assert (line["event"], line["table"], line["flows"]) == ("flows restored", "nat", 3)
    assert [handled(path, port, 16) for port in (40000, 40001, 40002)] == before


@pytest.fixture
def many(files: JournalFiles) -> tuple[JournalFiles, dict[int, bytes]]:
    """The journals of a worker that had so many flows that they are restored step by step; and the
    backends by the clients' ports.
    """
    roomy = replace(files, records=10_000)
    path, _ = lives(roomy)
    return roomy, {port: handled(path, port) for port in range(30_000, 30_001 + AT_ONCE)}


def test_many_flows_are_restored_while_it_serves(
    many: tuple[JournalFiles, dict[int, bytes]],
) -> None:
    """Segments go to the same backends whether their flows were restored yet or not, a new client
    gets a flow, a tick restores a number of them, and the last one logs it.
    """
    files, before = many
    path = build(config(), 0, 0.0)
    with capture_logs() as logged:
        journals = restore_flows(path, files, every, log.logger())
        assert (path.flows, logged) == (len(before), [])
        handled(path, 50_000)
        table = path.tables["nat"]
        assert table.unread is not None
        for port in list(before)[::100]:
            assert handled(path, port, 16) == before[port]
        ticks = 0
        while table.unread is not None:
            ticks += 1
            left = table.reserved
            journals.restore_some(time.monotonic())
            assert left - table.reserved < RESTORED_A_TICK + 300  # and the rest of a group
        assert ticks > 2
    assert {port: handled(path, port, 16) for port in before} == before
    (line,) = logged
    assert (line["event"], line["flows"]) == ("flows restored", len(before))
    assert path.flows == len(before) + 1


def test_a_listing_waits_for_many_flows(many: tuple[JournalFiles, dict[int, bytes]]) -> None:
    """It has all, and lets the caller stop between any two."""
    files, before = many
    path = build(config(), 0, 0.0)
    restore_flows(path, files, every, log.logger())
    assert path.view is not None
    walk = path.view.walk(Match())
    assert next(walk) is None
    assert path.tables["nat"].unread is not None
    ports = {int.from_bytes(flow.forward_key[-4:-2], "big") for flow in walk if flow is not None}
    assert ports == set(before)


def test_live_flows_are_estimated_before_all_are_restored(
    many: tuple[JournalFiles, dict[int, bytes]],
) -> None:
    """A draining backend whose flows are not restored yet must not seem to have none."""
    files, before = many
    path = build(config(), 0, 0.0)
    restore_flows(path, files, every, log.logger())
    unread = path.tables["nat"].unread
    assert unread is not None
    assert [row["flows"] for _, _, row in path.traffic()] == [1, 1, 1]
    unread.step(len(before) // 2)
    rows = [row for _, _, row in path.traffic()]
    assert all(row["flows"] == 1 for row in rows)  # the others are half-open
    for row in rows:
        assert abs(row["inactive"] - len(before) / 3) < 300
    assert abs(path.groups["half_open"] - len(before)) <= 3
    unread.finish()
    rows = [row for _, _, row in path.traffic()]
    assert sum(row["flows"] + row["inactive"] for row in rows) == len(before)
    assert path.groups["half_open"] == len(before)


def test_a_reload_restores_many_flows_first(many: tuple[JournalFiles, dict[int, bytes]]) -> None:
    """Their backends are those of the configuration before."""
    files, before = many
    path = build(config(), 0, 0.0)
    journals = restore_flows(path, files, every, log.logger())
    path.apply_config(config(backends=2), config(), 0, STRATEGIES)
    assert path.tables["nat"].unread is None
    assert {port: handled(path, port, 16) for port in before} == before
    with capture_logs() as logged:
        journals.restore_some(time.monotonic())
    assert [line["flows"] for line in logged] == [len(before)]


def test_a_journal_that_is_cut_while_many_are_unread(
    many: tuple[JournalFiles, dict[int, bytes]],
) -> None:
    """What can still be read is restored, and the journal has it, and is whole."""
    files, before = many
    path = build(config(), 0, 0.0)
    journals = restore_flows(path, files, every, log.logger())
    some = list(before)[:10]
    for port in some:
        handled(path, port, 16)
    os.truncate(files.path("nat"), 0)
    table = path.tables["nat"]
    assert looks(journals, 120.0) == []
    while table.unread is not None:
        journals.restore_some(BEGIN + 121.0)
    assert looks(journals, 122.0) == ["journal damaged, rewritten"]
    assert {port: handled(path, port, 16) for port in some} == {p: before[p] for p in some}
    assert table.reserved == 0
    kept = len(table)
    del path, journals, table
    assert lives(files)[1][0]["flows"] == kept


def test_flows_that_are_left_out_are_reported(files: JournalFiles) -> None:
    """Flows of a backend that is no longer configured."""
    path, _ = lives(files)
    for port in range(40000, 40006):
        handled(path, port)
    del path
    _, (line,) = lives(files, config(backends=2))
    assert (line["flows"], line["unknown"]) == (4, 2)


def shares(workers: int) -> list[WorkerShare]:
    """The flows of each of ``workers``."""
    return [WorkerShare(worker, workers, 7) for worker in range(workers)]


def test_other_cores(files: JournalFiles) -> None:
    """Each worker restores its share of all flows; only once, also when it is replaced later."""
    old = [replace(files, core=core) for core in (0, 1)]
    before = {}
    for core, first in enumerate((40000, 41000)):
        path, _ = lives(old[core])
        for port in range(first, first + 30):
            before[port] = handled(path, port)
        del path
    new = [replace(files, steering="three", core=core) for core in (0, 1, 2)]
    counts = []
    for each, share in zip(new, shares(3), strict=True):
        path, (line,) = lives(each, share=share)
        mine = {port: backend for port, backend in before.items() if share.has(CLIENT, port)}
        assert {port: handled(path, port, 16) for port in mine} == mine
        assert line["flows"] == path.flows == len(mine)
        counts.append(len(mine))
        del path
    assert sum(counts) == len(before)
    assert min(counts) > 0
    new[0].remove_others()
    pairs = zip(new, shares(3), strict=True)
    assert [lives(each, share=share)[1][0]["flows"] for each, share in pairs] == counts


def test_many_flows_on_other_cores(many: tuple[JournalFiles, dict[int, bytes]]) -> None:
    """They are restored step by step, too, and packets find them meanwhile."""
    files, before = many
    path = build(config(), 0, 0.0)
    new = replace(files, steering="three", core=1)
    journals = restore_flows(path, new, every, log.logger())
    table = path.tables["nat"]
    assert (table.unread is not None, path.flows) == (True, len(before))
    some = dict(list(before.items())[::100])
    assert {port: handled(path, port, 16) for port in some} == some
    while table.unread is not None:
        journals.restore_some(time.monotonic())
    assert {port: handled(path, port, 16) for port in before} == before


def test_other_cores_without_memory_for_a_journal(
    files: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flows are restored, and the next worker does not have them."""
    path, _ = lives(files)
    before = {port: handled(path, port) for port in range(40000, 40010)}
    del path
    monkeypatch.setattr(Mapped, "reserve", lambda *_: False)
    path, (line,) = lives(replace(files, steering="three"))
    assert line["flows"] == len(before)
    assert {port: handled(path, port, 16) for port in before} == before


def test_a_damaged_journal_is_reported(files: JournalFiles) -> None:
    """The worker begins with no flows, in a journal that the next one finds."""
    files.path("nat").write_bytes(b"this is not what you are looking for" * 10)
    path, (line,) = lives(files)
    assert (line["event"], line["why"]) == ("journal not used", "it is no journal")
    handled(path, 40000)
    del path
    assert lives(files)[1][0]["flows"] == 1


def test_a_damaged_journal_of_another_is_reported(files: JournalFiles) -> None:
    """The flows of the others are restored."""
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

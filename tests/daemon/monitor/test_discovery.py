"""Tests of ``paraglider.daemon.monitor.discovery``.

When names are asked, what is told, and the process.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.daemon.monitor import discovery as scout_module
from paraglider.daemon.monitor.discovery import (
    LEAST,
    LONGEST_WAIT,
    MOST,
    Rhythm,
    Scout,
    ScoutSpec,
    run,
)
from paraglider.daemon.monitor.discovery_messages import (
    Answered,
    Changed,
    Errand,
    Failed,
    Name,
    News,
    told,
)
from paraglider.daemon.processes.channel import Channel
from paraglider.daemon.processes.spec import READY
from paraglider.host.dns_records import NoAnswerError, Query, Reply, Srv

NOBODY = 65534
PATIENCE = 20
WEB, API = Name("_web._tcp.example", "", 4), Name("_api._tcp.example", "", 4)
ONE = ipaddress.ip_address("10.0.0.1")


class Dns:
    """Answers for WEB with ``address``, fails for all else, and counts what it was asked."""

    def __init__(self) -> None:
        self.address = "10.0.0.1"
        self.asked: list[str] = []

    def query_for(self, name: Name) -> Query:
        """See ``asking.QueryFor``."""

        async def query(wanted: str, kind: str) -> Reply:
            if kind == "SRV":
                self.asked.append(wanted)
            if name != WEB:
                raise NoAnswerError(f"{wanted}: nobody answers")
            return Reply((Srv(0, 1, 8080, "a.") if kind == "SRV" else self.address,), 0)

        return query


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds."""
    monkeypatch.setattr(scout_module, "LEAST", 0.01)
    monkeypatch.setattr(scout_module, "LONGEST_WAIT", 0.02)


def scenario(play: Callable[[Scout, Dns, list[News]], Any]) -> None:
    """Have ``play`` talk to a scout that has started, and end it."""

    async def whole() -> None:
        dns, news = Dns(), list[News]()

        def tell(plain: Mapping[str, Any]) -> None:
            news.append(told(plain))

        scout = Scout(tell, dns.query_for)
        await scout.start()
        async with asyncio.timeout(PATIENCE):
            await play(scout, dns, news)
            await scout.close()
        assert scout.broken is not None
        assert not scout.broken.done()

    asyncio.run(whole())


async def until(true: Callable[[], object]) -> None:
    """Wait for it."""
    while not true():
        await asyncio.sleep(0.005)


@given(st.lists(st.none() | st.floats(0, 1e9), min_size=1))
def test_rhythm(events: list[float | None]) -> None:
    """However answers and failures (None) come, the next question is neither soon nor never."""
    rhythm = Rhythm()
    for ttl in events:
        if ttl is None:
            assert LEAST <= rhythm.failed() <= LONGEST_WAIT
        else:
            assert rhythm.answered(ttl) == min(max(ttl, LEAST), MOST)


def test_failures_are_further_and_further_apart() -> None:
    """Until an answer comes."""
    rhythm = Rhythm()
    waits = [rhythm.failed() for _ in range(6)]
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    rhythm.answered(60)
    assert rhythm.failed() == 2.0


def test_names_are_asked_again_and_again(quick: None) -> None:
    """What the DNS says is told each time, whether it answers or not."""

    async def play(scout: Scout, dns: Dns, news: list[News]) -> None:
        scout.take(Errand((WEB, API), ()).plain())
        await until(lambda: Failed(API, "_api._tcp.example: nobody answers") in news)
        await until(
            lambda: any(isinstance(n, Answered) and n.records[0].address == ONE for n in news)
        )
        dns.address = "10.0.0.2"
        await until(
            lambda: any(isinstance(n, Answered) and n.records[0].address != ONE for n in news)
        )
        await until(lambda: dns.asked.count(API.name) > 2)

    scenario(play)


def test_what_is_no_errand_any_more(quick: None) -> None:
    """A name that is gone is not asked; one that stays is not asked from the beginning."""

    async def play(scout: Scout, dns: Dns, news: list[News]) -> None:
        scout.take(Errand((WEB, API), ()).plain())
        await until(lambda: news)
        scout.take(Errand((WEB,), ()).plain())
        asked = dns.asked.count(API.name)
        before = dns.asked.count(WEB.name)
        await until(lambda: dns.asked.count(WEB.name) > before + 2)
        assert dns.asked.count(API.name) == asked

    scenario(play)


def test_files_are_watched(tmp_path: Path) -> None:
    """A file is told at once and when it changes, until the errand has another."""
    web, api = tmp_path / "web", tmp_path / "api"

    async def play(scout: Scout, dns: Dns, news: list[News]) -> None:
        scout.take(Errand((), (str(web),)).plain())
        await until(lambda: news == [Changed(str(web))])
        web.touch()
        await until(lambda: news == [Changed(str(web))] * 2)
        scout.take(Errand((), (str(api),)).plain())
        web.write_text("1")
        await until(lambda: len(news) == 3)
        api.touch()
        await until(lambda: len(news) == 4)
        assert news[2:] == [Changed(str(api))] * 2

    scenario(play)


def test_what_nobody_foresaw_is_not_passed_over() -> None:
    """An error in a task is there for who runs the scout."""

    async def whole() -> None:
        def tell(plain: Mapping[str, Any]) -> None:
            raise ZeroDivisionError

        scout = Scout(tell, Dns().query_for)
        await scout.start()
        assert scout.broken is not None
        scout.take(Errand((WEB,), ()).plain())
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(scout.broken, PATIENCE)
        await scout.close()

    asyncio.run(whole())


@pytest.mark.root
def test_the_process(tmp_path: Path) -> None:
    """It serves as nobody without capabilities, tells of a file, and ends when it is told."""
    ours, theirs = Channel.pair()
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            ours.close()
            status = run(ScoutSpec(0, NOBODY, NOBODY, channel=theirs), writing, parent)
        finally:
            os._exit(status)
    try:
        os.close(writing)
        theirs.close()
        with os.fdopen(reading, "rb") as report:
            assert report.read() == READY
        words = dict(
            line.split(":\t")
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith(("Uid", "Groups", "Cap", "NoNewPrivs"))
        )
        assert words["Uid"].split() == [str(NOBODY)] * 4
        assert {words[c] for c in ("CapPrm", "CapEff", "CapInh", "CapBnd")} == {"0" * 16}
        assert (words["Groups"].strip(), words["NoNewPrivs"]) == ("", "1")
        file = Path("/tmp") / f"paraglider-scout-{pid}"
        ours.send(Errand((), (str(file),)).plain())
        assert said(ours) == Changed(str(file))
        file.touch()
        try:
            assert said(ours) == Changed(str(file))
        finally:
            file.unlink()
        os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        pid = 0
        assert status == 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        ours.close()


def said(channel: Channel) -> News:
    """The next news."""

    async def hear() -> News:
        while True:
            for message in channel.receive():
                return told(message)
            await asyncio.sleep(0.01)

    return asyncio.run(asyncio.wait_for(hear(), PATIENCE))

"""Tests of ``paraglider.daemon.monitor.discovery``: the times of queries, and reports."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import TIMEOUT

from paraglider.daemon.messages import DnsFailure, DnsName, DnsUpdate, FileChanged
from paraglider.daemon.monitor import discovery as discovery_module
from paraglider.daemon.monitor.discovery import (
    LEAST,
    LONGEST_WAIT,
    MOST,
    Backoff,
    Discovery,
)
from paraglider.daemon.monitor.outbox import DiscoveryNews
from paraglider.host.dns_records import NoAnswerError, Query, Reply, Srv

WEB, API = DnsName("_web._tcp.example", "", 4), DnsName("_api._tcp.example", "", 4)
ONE = ipaddress.ip_address("10.0.0.1")


class Dns:
    """Answers for WEB with ``address``, fails for others, and counts the queries."""

    def __init__(self) -> None:
        self.address = "10.0.0.1"
        self.asked: list[str] = []
        self.servers: list[str] = []

    def query_for(self, name: DnsName, resolv_conf: str) -> Query:
        """See ``dns_lookup.QueryFor``."""
        self.servers.append(resolv_conf)

        async def query(wanted: str, kind: str) -> Reply:
            if kind == "SRV":
                self.asked.append(wanted)
            if name != WEB:
                raise NoAnswerError(f"{wanted}: nobody answers")
            return Reply((Srv(0, 1, 8080, "a.") if kind == "SRV" else self.address,), 0)

        return query


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for seconds."""
    monkeypatch.setattr(discovery_module, "LEAST", 0.01)
    monkeypatch.setattr(discovery_module, "LONGEST_WAIT", 0.02)


def scenario(play: Callable[[Discovery, Dns, list[DiscoveryNews]], Any]) -> None:
    """Run ``play`` with a running discovery, and close it."""

    async def whole() -> None:
        dns, news = Dns(), list[DiscoveryNews]()

        discovery = Discovery(news.append, dns.query_for)
        broken = await discovery.start()
        async with asyncio.timeout(TIMEOUT):
            await play(discovery, dns, news)
            assert not broken.done()
            await discovery.close()

    asyncio.run(whole())


async def until(true: Callable[[], object]) -> None:
    """Wait for it."""
    while not true():
        await asyncio.sleep(0.005)


@given(st.lists(st.none() | st.floats(0, 1e9), min_size=1))
def test_backoff(events: list[float | None]) -> None:
    """After any answers and failures (None), the next query is neither too early nor never."""
    backoff = Backoff()
    for ttl in events:
        if ttl is None:
            assert LEAST <= backoff.failed() <= LONGEST_WAIT
        else:
            assert backoff.answered(ttl) == min(max(ttl, LEAST), MOST)


def test_failures_are_further_and_further_apart() -> None:
    """The pause doubles until an answer arrives."""
    backoff = Backoff()
    waits = [backoff.failed() for _ in range(6)]
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    backoff.answered(60)
    assert backoff.failed() == 2.0


def test_names_are_asked_again_and_again(quick: None) -> None:
    """Each result of the DNS is reported, answer or failure."""

    async def play(discovery: Discovery, dns: Dns, news: list[DiscoveryNews]) -> None:
        discovery.update((WEB, API), ())
        await until(lambda: DnsFailure(name=API, why="_api._tcp.example: nobody answers") in news)
        await until(
            lambda: any(isinstance(n, DnsUpdate) and n.records[0].address == ONE for n in news)
        )
        dns.address = "10.0.0.2"
        await until(
            lambda: any(isinstance(n, DnsUpdate) and n.records[0].address != ONE for n in news)
        )
        await until(lambda: dns.asked.count(API.name) > 2)

    scenario(play)


def test_what_is_no_source_any_more(quick: None) -> None:
    """A removed name is no longer queried; one that stays keeps its schedule."""

    async def play(discovery: Discovery, dns: Dns, news: list[DiscoveryNews]) -> None:
        discovery.update((WEB, API), ())
        await until(lambda: news)
        discovery.update((WEB,), ())
        asked = dns.asked.count(API.name)
        before = dns.asked.count(WEB.name)
        await until(lambda: dns.asked.count(WEB.name) > before + 2)
        assert dns.asked.count(API.name) == asked

    scenario(play)


def test_other_name_servers_are_used_from_the_next_query_on(quick: None) -> None:
    """Those of the host may change while a name is queried again and again."""

    async def play(discovery: Discovery, dns: Dns, news: list[DiscoveryNews]) -> None:
        discovery.update((WEB,), (), "nameserver 192.0.2.1")
        await until(lambda: dns.servers)
        assert set(dns.servers) == {"nameserver 192.0.2.1"}
        discovery.update((WEB,), (), "nameserver 192.0.2.2")
        await until(lambda: dns.servers[-1] == "nameserver 192.0.2.2")

    scenario(play)


def test_files_are_watched(tmp_path: Path) -> None:
    """A file is reported at once and when it changes, until there is another."""
    web, api = tmp_path / "web", tmp_path / "api"

    async def play(discovery: Discovery, dns: Dns, news: list[DiscoveryNews]) -> None:
        discovery.update((), (str(web),))
        await until(lambda: news == [FileChanged(file=str(web))])
        web.touch()
        await until(lambda: news == [FileChanged(file=str(web))] * 2)
        discovery.update((), (str(api),))
        web.write_text("1")
        await until(lambda: len(news) == 3)
        api.touch()
        await until(lambda: len(news) == 4)
        assert news[2:] == [FileChanged(file=str(api))] * 2

    scenario(play)


def test_an_unexpected_error_ends_the_process() -> None:
    """An error in a task is there for the process to end with."""

    async def whole() -> None:
        def fail(_news: object) -> None:
            raise ZeroDivisionError

        discovery = Discovery(fail, Dns().query_for)
        broken = await discovery.start()
        discovery.update((WEB,), ())
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(broken, TIMEOUT)
        await discovery.close()

    asyncio.run(whole())

"""Tests of ``daemon.monitor.dns_lookup``: the DNS queries before a start, and their timeout."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from waiting import TIMEOUT, ends_at_its_limit

from paraglider.daemon.messages import DnsFailure, DnsName, DnsUpdate
from paraglider.daemon.monitor import dns_lookup as module
from paraglider.daemon.monitor.dns_lookup import resolve, resolve_once
from paraglider.host.dns_records import NoAnswerError, Query, Reply, Srv

USER = 65534, 65534
WEB, API = DnsName("_web._tcp.example", "", 4), DnsName("_api._tcp.example", "", 4)


def query_for_web(name: DnsName, _resolv_conf: str = "") -> Query:
    """Answers for WEB only."""

    async def query(wanted: str, kind: str) -> Reply:
        if name != WEB:
            raise NoAnswerError(f"{wanted}: nobody answers")
        return Reply((Srv(0, 1, 8080, "a.") if kind == "SRV" else "10.0.0.1",), 0)

    return query


def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that goes on for ever has failed, as one that answers nothing useful has."""

    async def silent(wanted: str, kind: str) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    why = f"{WEB.name}: no answer within 0.01 s"
    with monkeypatch.context() as patched:
        patched.setattr(module, "TIMEOUT", 0.01)
        assert asyncio.run(resolve(WEB, silent)) == DnsFailure(name=WEB, why=why)
    found = asyncio.run(resolve(API, query_for_web(API)))
    assert found == DnsFailure(name=API, why=f"{API.name}: nobody answers")
    assert isinstance(asyncio.run(resolve(WEB, query_for_web(WEB))), DnsUpdate)


@pytest.mark.root
def test_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process queries before the start, and its result arrives here."""
    monkeypatch.setattr(module, "FIRST_TIMEOUT", TIMEOUT)
    found = resolve_once([WEB, API], USER, str(tmp_path), query_for_web)
    assert sorted(type(news).__name__ for news in found) == ["DnsFailure", "DnsUpdate"]
    assert {news.name for news in found} == {WEB, API}


@pytest.mark.root
def test_asked_once_without_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start does not wait for an answer for ever, and has the others."""

    def query_for(name: DnsName, _resolv_conf: str) -> Query:
        async def silent(wanted: str, kind: str) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError

        return query_for_web(name) if name == WEB else silent

    def asked(limit: int) -> list[DnsName]:
        monkeypatch.setattr(module, "FIRST_TIMEOUT", limit)
        return [news.name for news in resolve_once([API, WEB], USER, str(tmp_path), query_for)]

    ends_at_its_limit(asked, lambda _: [WEB])


def test_nothing_to_ask() -> None:
    """Without names no process is forked."""
    assert resolve_once([], USER, "/nowhere") == []

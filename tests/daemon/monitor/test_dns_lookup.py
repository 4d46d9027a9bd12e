"""Tests of ``daemon.monitor.dns_lookup``: what a start learns of the DNS, and how long it
waits for it.
"""

from __future__ import annotations

import asyncio

import pytest

from paraglider.daemon.messages import DnsFailure, DnsName, DnsUpdate
from paraglider.daemon.monitor import dns_lookup as module
from paraglider.daemon.monitor.dns_lookup import ask, ask_once
from paraglider.host.dns_records import NoAnswerError, Query, Reply, Srv

NOBODY = 65534
WEB, API = DnsName("_web._tcp.example", "", 4), DnsName("_api._tcp.example", "", 4)


def query_for_web(name: DnsName) -> Query:
    """Answers for WEB, and for nothing else."""

    async def query(wanted: str, kind: str) -> Reply:
        if name != WEB:
            raise NoAnswerError(f"{wanted}: nobody answers")
        return Reply((Srv(0, 1, 8080, "a.") if kind == "SRV" else "10.0.0.1",), 0)

    return query


def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that goes on for ever has failed, as one that answers nothing useful has."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)

    async def silent(wanted: str, kind: str) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    why = f"{WEB.name}: no answer within 0.01 s"
    assert asyncio.run(ask(WEB, silent)) == DnsFailure(name=WEB, why=why)
    found = asyncio.run(ask(API, query_for_web(API)))
    assert found == DnsFailure(name=API, why=f"{API.name}: nobody answers")
    assert isinstance(asyncio.run(ask(WEB, query_for_web(WEB))), DnsUpdate)


@pytest.mark.root
def test_asked_once() -> None:
    """Before anything is started another process asks, and what it finds is here."""
    found = ask_once([WEB, API], NOBODY, NOBODY, query_for_web)
    assert sorted(type(news).__name__ for news in found) == ["DnsFailure", "DnsUpdate"]
    assert {news.name for news in found} == {WEB, API}


@pytest.mark.root
def test_asked_once_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start does not wait for an answer for ever, and has the others."""
    monkeypatch.setattr(module, "FIRST_PATIENCE", 0.5)

    def query_for(name: DnsName) -> Query:
        async def silent(wanted: str, kind: str) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError

        return query_for_web(name) if name == WEB else silent

    assert [news.name for news in ask_once([API, WEB], NOBODY, NOBODY, query_for)] == [WEB]


def test_nothing_to_ask() -> None:
    """Without names there is no process."""
    assert ask_once([], NOBODY, NOBODY) == []

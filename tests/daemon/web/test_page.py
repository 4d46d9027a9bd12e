"""The page in the http process: its files, its feed, its permissions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from waiting import TIMEOUT

import paraglider
from paraglider.daemon.messages import Message, Refusal, Result, ShowRequest
from paraglider.daemon.web.page import StatsPage
from paraglider.daemon.web.routes import File

INDEX = File(b"<p>index</p>", "text/html; charset=utf-8", '"1"')
STATUS = {"at": 1.0, "services": [], "backends": [], "workers": [], "health": {}}

Client = TestClient[Any, Any]


@pytest.fixture
def page() -> Iterator[StatsPage]:
    """A page for "lb.example" without permission for changes."""
    with socket.socket() as listening:
        yield StatsPage(listening, ("lb.example",), False, {"index.html": INDEX})


def served(
    page: StatsPage, reply: Message, use: Callable[[Client], Awaitable[None]]
) -> list[Message]:
    """Run ``use`` with ``page``, whose requests get ``reply``; returns the requests."""
    asked: list[Message] = []

    async def main() -> None:
        answered = asyncio.Event()

        async def ask(request: Message) -> Message:
            asked.append(request)
            answered.set()
            return reply

        app = page.application(ask, lambda *_: None)
        feeding = asyncio.create_task(page.feed())
        await answered.wait()
        async with TestClient(TestServer(app)) as client:
            await use(client)
        feeding.cancel()

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    return asked


def test_what_it_asks_and_shows(page: StatsPage) -> None:
    """The supervisor's status, with this host, this version, and the page's permissions."""

    async def use(client: Client) -> None:
        shown = await (await client.get("/api/v1/status")).json()
        about = {"version": paraglider.__version__, "host": socket.gethostname(), "admin": False}
        assert about.items() <= shown.items()
        assert shown["at"] == 1.0
        assert await (await client.get("/")).read() == INDEX.body

    assert served(page, Result(value=STATUS), use)[0] == ShowRequest(
        listener="stats", view="status"
    )


def test_a_silent_supervisor(page: StatsPage) -> None:
    """The page is served without data."""

    async def use(client: Client) -> None:
        assert (await client.get("/")).status == 200
        assert (await client.get("/api/v1/status")).status == 503

    served(page, Refusal(error="busy", fault="platform"), use)


def test_its_names(page: StatsPage) -> None:
    """A request for another host is not for us."""

    async def use(client: Client) -> None:
        for host, status in (("lb.example", 200), ("LB.example:80", 200), ("evil.example", 421)):
            assert (await client.get("/", headers={"Host": host})).status == status

    served(page, Result(value=STATUS), use)


def test_without_an_application(page: StatsPage) -> None:
    """There is nothing to feed, and the feed ends."""
    asyncio.run(asyncio.wait_for(page.feed(), TIMEOUT))

"""Tests of ``paraglider.daemon.web.routes``: files, changes, errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from waiting import TIMEOUT

from paraglider.daemon.messages import Message, Refusal, SetRequest
from paraglider.daemon.web.events import Streams
from paraglider.daemon.web.feed import Feed
from paraglider.daemon.web.guard import HEADERS, RequestGuard
from paraglider.daemon.web.peers import Peers
from paraglider.daemon.web.routes import TOKEN, Shown, application, files

Client = TestClient[Any, Any]


def served(use: Callable[[Client], Awaitable[None]]) -> list[Message]:
    """Run ``use`` with the page of a supervisor without a status; returns its requests."""
    asked: list[Message] = []

    async def ask(request: Message) -> Message:
        asked.append(request)
        return Refusal(error="no", remedy="yes", fault="operator")

    async def main() -> None:
        feed = Feed(ask, {})
        shown = Shown(files(), feed, Streams(feed, lambda *_: None), Peers(()))
        app = application(shown, RequestGuard(()), ask)
        async with TestClient(TestServer(app)) as client:
            await use(client)

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))
    return asked


def test_files() -> None:
    """Every file of the page comes with its type and tag; one that is known is not sent again."""

    async def use(client: Client) -> None:
        for name, file in files().items():
            answer = await client.get(f"/static/{name}")
            assert await answer.read() == file.body
            assert answer.headers["Content-Type"] == file.kind
            assert answer.headers["Cache-Control"] == "no-cache"
            again = await client.get(f"/static/{name}", headers={"If-None-Match": file.tag})
            assert (again.status, await again.read()) == (304, b"")
        index = await client.get("/")
        assert await index.read() == files()["index.html"].body
        assert (await client.get("/static/nosuch.js")).status == 404

    assert served(use) == []


def test_the_page_has_nothing_inline() -> None:
    """The markup has no script, style or handler, which its policy forbids."""
    page = files()["index.html"].body.decode()
    for forbidden in ("<style", " style=", " onclick=", "javascript:", "<script>", "http://"):
        assert forbidden not in page
    scripts = [file.body.decode() for name, file in files().items() if name.endswith(".js")]
    assert not any("innerHTML =" in text for text in scripts if "uPlot (v" not in text[:200])


def test_errors_are_json_with_all_headers() -> None:
    """No data yet, not found, wrong method: all with the security headers."""

    async def use(client: Client) -> None:
        for method, path, status in (
            ("GET", "/api/v1/status", 503),
            ("GET", "/stats.csv", 503),
            ("GET", "/nosuch", 404),
            ("PUT", "/", 405),
            ("HEAD", "/events", 405),
        ):
            answer = await client.request(method, path)
            assert answer.status == status
            assert method == "HEAD" or "error" in await answer.json()
            assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS

    assert served(use) == []


@pytest.mark.parametrize("token", [None, "secret"])
def test_a_change_is_sent_with_its_token(token: str | None) -> None:
    """Place and token are those of the request, whatever its body has."""

    async def use(client: Client) -> None:
        body = {
            "state": "drain",
            "service": "x",
            "backend": "y",
            "type": "kill",
            "listener": "control",
        }
        body |= {"token": "mine"}
        headers = {} if token is None else {TOKEN: token}
        answer = await client.post(
            "/api/v1/backends/web/10.0.0.1", data=json.dumps(body), headers=headers
        )
        assert (answer.status, await answer.json()) == (400, {"error": "no", "remedy": "yes"})
        assert (await client.post("/api/v1/backends/web/b", data="{")).status == 400

    (asked,) = served(use)
    assert asked == SetRequest(
        listener="stats", service="web", backend="10.0.0.1", state="drain", token=token
    )


def test_probes() -> None:
    """Status and text by the last sample; 503 without one, and 400 for what is not known."""

    async def main() -> None:
        feed = Feed(refuse, {})
        shown = Shown(files(), feed, Streams(feed, lambda *_: None), Peers(()))
        async with TestClient(TestServer(application(shown, RequestGuard(()), refuse))) as client:
            assert (await client.get("/healthz")).status == 503
            health = {"status": "draining", "problems": ["a: b"]}
            feed.sample = {"health": health, "node": {"health": "healthy"}}
            for path, status, text in (
                ("/healthz", 200, "draining\na: b\n"),
                ("/readyz", 503, "draining\na: b\n"),
                ("/readyz?of=node", 200, "healthy\n"),
            ):
                answer = await client.get(path)
                assert (answer.status, await answer.text()) == (status, text)
                assert answer.headers["Cache-Control"] == "no-store"
            assert (await client.get("/readyz?of=x")).status == 400
            assert (await client.get("/readyz", headers={"Host": "evil.example"})).status == 421

    async def refuse(_request: Message) -> Message:
        return Refusal(error="no", remedy="yes", fault="operator")

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))

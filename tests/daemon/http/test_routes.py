"""HTTP requests to requests of the supervisor: refusals by type and size."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from waiting import TIMEOUT

from paraglider.daemon.control.requests import LARGEST
from paraglider.daemon.http import routes
from paraglider.daemon.http.connection_limiter import ConnectionLimiter, everybody
from paraglider.daemon.messages import (
    CarrierRequest,
    FlowMatch,
    FlowsRequest,
    KillRequest,
    Message,
    Refusal,
    ReloadRequest,
    Result,
    SetRequest,
    ShowRequest,
)
from paraglider.errors import PlatformError

HERE: Any = {"listener": "control", "connection": 7}


class Talk:
    """Connections; ``asked`` is the request to the supervisor, ``reply`` its answer."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.reply: Message | PlatformError = Result(value=["yes"])
        self.runner = routes.runner(routes.application(self._ask, lambda _: 7))

    async def _ask(self, message: Message) -> Message:
        self.asked.append(message)
        if isinstance(self.reply, PlatformError):
            raise self.reply
        return self.reply

    async def __aenter__(self) -> Talk:
        await self.runner.setup()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        server = routes.server_of(self.runner)
        await asyncio.get_running_loop().connect_accepted_socket(server, theirs)
        return await asyncio.open_connection(sock=ours)

    @property
    def server(self) -> Any:
        """A factory of a handler for each connection."""
        return routes.server_of(self.runner)

    async def send(self, request: bytes) -> tuple[int, Any]:
        """Status and JSON of the answer; the connection is over then."""
        reader, writer = await self.connect()
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), TIMEOUT)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    async def ask(self, first: str, body: str = "") -> tuple[int, Any]:
        """The same for a request that is begun by ``first``."""
        head = f"{first} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        return await self.send((head + body).encode())


def talk(what: Callable[[Talk], Awaitable[None]]) -> None:
    """Run a conversation."""

    async def run() -> None:
        async with Talk() as made:
            await what(made)

    asyncio.run(run())


def test_requests_are_sent_to_the_supervisor() -> None:
    """Words of query and path, numbers as numbers; the path selects the request, and the listener
    is set here.
    """

    async def what(talk: Talk) -> None:
        assert await talk.ask("GET /v1/status") == (200, ["yes"])
        await talk.ask("GET /v1/flows?client=192.0.2.0/24&limit=5&type=kill")
        await talk.ask(
            "POST /v1/backends/web/%5Bfd00::1%5D:80", '{"weight": 3, "listener": "stats"}'
        )
        await talk.ask("POST /v1/flows/kill", '{"all": true}')
        await talk.ask("POST /v1/reload")
        await talk.ask("GET /v1/carrier")
        await talk.ask("POST /v1/carrier", '{"state": "off"}')
        assert talk.asked == [
            ShowRequest(**HERE, view="status"),
            FlowsRequest(**HERE, match=FlowMatch(client="192.0.2.0/24"), limit=5),
            SetRequest(**HERE, service="web", backend="[fd00::1]:80", weight=3),
            KillRequest(**HERE, all=True),
            ReloadRequest(**HERE),
            ShowRequest(**HERE, view="carrier"),
            CarrierRequest(**HERE, state="off"),
        ]

    talk(what)


@pytest.mark.parametrize(
    ("first", "body", "status", "words"),
    [
        ("GET /", "", 404, "not found"),
        ("GET /v1/nosuch", "", 404, "not found"),
        ("GET /v1/../v1/status/..", "", 404, "not found"),
        ("POST /v1/status", "{}", 405, "method not allowed"),
        ("GET /v1/flows/kill", "", 405, "method not allowed"),
        ("POST /v1/flows/kill", "{", 400, "the body is no JSON"),
        ("POST /v1/flows/kill", "[1]", 400, "the body is no JSON object"),
        ("POST /v1/flows/kill", "[" * 60_000, 400, "the body is no JSON"),
        ("POST /v1/flows/kill", '"' + "x" * LARGEST + '"', 413, "too large"),
        ("POST /v1/flows/kill", '{"all": "yes"}', 400, "`all` is not valid"),
        ("POST /v1/flows/kill", '{"client": "nowhere"}', 400, "is no address"),
        ("POST /v1/flows/kill", '{"client": 7}', 400, "`client` is no text"),
        ("GET /v1/flows?limit=1001", "", 400, "`limit` is not valid"),
        ("GET /v1/flows?limit=all", "", 400, "`limit` is not valid"),
        ("GET /v1/flows?client=%00", "", 400, "is no address"),
        ("POST /v1/backends/web/b", '{"weight": "3"}', 400, "`weight` is not valid"),
        ("POST /v1/backends/web/b", '{"weight": true}', 400, "`weight` is not valid"),
        ("POST /v1/backends/web/b", '{"weight": NaN}', 400, "`weight` is not valid"),
        ("POST /v1/backends/web/b", '{"state": []}', 400, "`state` is not valid"),
        ("POST /v1/backends/web/b", '{"state": "\\ud800"}', 400, "is not valid"),
        ("POST /v1/reload", '{"force": 1}', 400, "`force` is not valid"),
        ("POST /v1/carrier", "{}", 400, "`state` is not valid"),
        ("POST /v1/carrier", '{"state": true}', 400, "`state` is not valid"),
    ],
)
def test_what_is_no_request_is_never_sent(first: str, body: str, status: int, words: str) -> None:
    """It is refused in JSON."""

    async def what(talk: Talk) -> None:
        found, answer = await talk.ask(first, body)
        assert (found, talk.asked) == (status, [])
        assert words in answer["error"]

    talk(what)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Refusal(error="x", remedy="y", fault="operator"), 400),
        (Refusal(error="x", remedy="y", fault="platform"), 503),
        (PlatformError("x", "y"), 503),
    ],
)
def test_a_refusal_of_the_supervisor(reply: Message | PlatformError, status: int) -> None:
    """Its words, and a status by whose fault it was."""

    async def what(talk: Talk) -> None:
        talk.reply = reply
        found, answer = await talk.ask("GET /v1/health")
        assert (found, answer["error"], answer["remedy"]) == (status, "x", "y")

    talk(what)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01" * 100 + b"\r\n\r\n",
        b"GET /v1/health HTTP/9.9\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"x" * 100_000,
        b"GET / HTTP/1.1\r\nHost: " + b"x" * 100_000,
    ],
)
def test_garbage_is_refused(garbage: bytes) -> None:
    """The connection is closed, as after every answer."""

    async def what(talk: Talk) -> None:
        reader, writer = await talk.connect()
        writer.write(garbage)
        answer = await asyncio.wait_for(reader.read(), TIMEOUT)
        writer.close()
        assert answer.split()[1] == b"400"
        assert talk.asked == []

    talk(what)


def test_100_mb_are_not_read() -> None:
    """A request of that length is refused after its first bytes."""

    async def what(talk: Talk) -> None:
        _, writer = await talk.connect()
        writer.write(
            b"POST /v1/flows/kill HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
        )
        sent = 0
        try:
            while sent < 100_000_000:
                writer.write(b"x" * 1_000_000)
                await writer.drain()
                sent += 1_000_000
        except OSError:
            pass
        writer.close()
        assert sent < 100_000_000
        assert talk.asked == []
        assert await talk.ask("GET /v1/health") == (200, ["yes"])

    talk(what)


def test_half_a_request_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that never ends loses its connection; others are answered meanwhile."""
    monkeypatch.setattr("paraglider.daemon.http.connection_limiter._SWEEP", 0.05)

    async def what(talk: Talk) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        door = ConnectionLimiter(listening, everybody, talk.server, lifetime=0.3)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"GET /v1/hea")
        assert await talk.ask("GET /v1/health") == (200, ["yes"])
        assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
        writer.close()
        door.close()
        listening.close()
        assert talk.asked == [ShowRequest(**HERE, view="health")]

    talk(what)


def test_a_rehearsal_ends_by_itself() -> None:
    """Each request of it is answered, possibly by a refusal."""

    async def what(talk: Talk) -> None:
        await asyncio.wait_for(routes.rehearse(talk.runner, routes.REHEARSAL), TIMEOUT)
        assert [type(request) for request in talk.asked] == [ShowRequest, KillRequest]

    talk(what)


def test_lines_of_a_file_are_in_the_answer() -> None:
    """The mistakes of a configuration, each with its place."""

    async def what(talk: Talk) -> None:
        talk.reply = Refusal(error="f:1:1: no", fault="operator", lines=("f:1:1: no",))
        assert (await talk.ask("POST /v1/reload"))[1]["lines"] == ["f:1:1: no"]

    talk(what)

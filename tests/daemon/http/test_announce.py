"""Tests of ``paraglider.daemon.http.announce``: answers without end, to clients of all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from waiting import TIMEOUT

from paraglider.daemon.http.announce import VipStreams
from paraglider.daemon.http.connection_limiter import ConnectionLimiter, everybody
from paraglider.daemon.http.routes import json_errors, runner, server_of
from paraglider.daemon.messages import AnnounceRequest, Message, Refusal, Result, VipNews

ASK = b"GET /v1/announce HTTP/1.0\r\nHost: a\r\n\r\n"
WEB, MAIL = "203.0.113.11", "203.0.113.12"
WELL = {"announce": True, "status": "healthy", "why": ""}
ILL = {"announce": False, "status": "unhealthy", "why": "no backend"}
BOTH = {WEB: (True, "healthy", ""), MAIL: (True, "healthy", "")}


class Scene:
    """The http process, a supervisor that answers ``reply``, and clients."""

    def __init__(self, **bounds: Any) -> None:
        self.streams = VipStreams(**bounds)
        self.asked: list[Message] = []
        self.reply: Message = Result(value=None)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        self._writers: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Serve, until the end."""

        async def ask(request: Message) -> Message:
            self.asked.append(request)
            return self.reply

        async def serve(request: web.Request) -> web.StreamResponse:
            return await self.streams.serve(request, ask, lambda _: 7, limiter.keep)

        app = web.Application(middlewares=[json_errors])
        app.router.add_get("/v1/announce", serve)
        made = runner(app)
        await made.setup()
        limiter = ConnectionLimiter(self._listening, everybody, server_of(made), lifetime=0.2)
        try:
            async with asyncio.timeout(TIMEOUT):
                yield
        finally:
            for writer in self._writers:
                writer.close()
            limiter.close()
            await made.cleanup()
            self._listening.close()

    async def client(self) -> asyncio.StreamReader:
        """One that has asked."""
        reader, writer = await asyncio.open_connection(*self._listening.getsockname()[:2])
        self._writers.append(writer)
        writer.write(ASK)
        return reader

    async def outlive(self) -> None:
        """Wait until a connection that came after all others has been ended for its age."""
        reader, writer = await asyncio.open_connection(*self._listening.getsockname()[:2])
        self._writers.append(writer)
        assert await reader.read() == b""

    async def leave(self, number: int) -> None:
        """A client closes its connection."""
        self._writers[number].close()
        await self._writers[number].wait_closed()

    def tell(self, vips: dict[str, tuple[bool, str, str]], loads: int | None = None) -> None:
        """The supervisor tells something."""
        self.streams.update(VipNews(loads=loads, vips=vips))


async def head(reader: asyncio.StreamReader) -> str:
    """The first line of an answer, whose head is read."""
    return (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0]


async def line(reader: asyncio.StreamReader) -> Any:
    """The next line."""
    return json.loads(await reader.readline())


def test_a_client_is_told_all_and_then_what_changes() -> None:
    """For longer than other connections last; one that comes later is told all from here."""

    async def main() -> None:
        scene = Scene()
        async with scene.served():
            first = await scene.client()
            assert await head(first) == "HTTP/1.0 200 OK"
            scene.tell({})
            scene.tell(BOTH, loads=1)
            assert await line(first) == {"loads": 1, "vips": {WEB: WELL, MAIL: WELL}}
            await scene.outlive()
            scene.tell({MAIL: (False, "unhealthy", "no backend")})
            assert await line(first) == {"vips": {MAIL: ILL}}
            scene.tell({})
            assert await line(first) == {}
            second = await scene.client()
            await head(second)
            assert await line(second) == {"loads": 1, "vips": {WEB: WELL, MAIL: ILL}}
            scene.tell({WEB: (True, "healthy", "")}, loads=2)
            for reader in (first, second):
                assert await line(reader) == {"loads": 2, "vips": {WEB: WELL}}
            assert scene.asked == 2 * [AnnounceRequest(listener="control", connection=7)]

    asyncio.run(main())


def test_nothing_is_told_without_a_word_of_the_supervisor() -> None:
    """A supervisor that hangs is silent here, too."""

    async def main() -> None:
        scene = Scene()
        async with scene.served():
            scene.tell(BOTH, loads=1)
            reader = await scene.client()
            await head(reader)
            await line(reader)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.5):
                    assert not await reader.readline()

    asyncio.run(main())


def test_a_client_that_does_not_read_gets_the_newest() -> None:
    """Not all that was in between; the others are told meanwhile."""

    async def main() -> None:
        scene = Scene()
        vips = {f"203.0.{n // 250}.{n % 250}": (True, "healthy", "w" * 200) for n in range(2000)}
        async with scene.served():
            scene.tell(vips, loads=1)
            slow, quick = await scene.client(), await scene.client()
            await head(quick)
            quick._limit = 1 << 24  # type: ignore[attr-defined]
            assert len((await line(quick))["vips"]) == 2000
            for number in range(50):
                scene.tell({vip: (False, "unhealthy", str(number)) for vip in vips})
                assert len((await line(quick))["vips"]) == 2000
            slow._limit = 1 << 24  # type: ignore[attr-defined]
            await head(slow)
            received = []
            while not received or "49" not in {v["why"] for v in received[-1]["vips"].values()}:
                received.append(await line(slow))
            assert len(received) < 25

    asyncio.run(main())


def test_a_client_that_never_reads_is_disconnected() -> None:
    """It takes no room for ever."""

    async def main() -> None:
        scene = Scene(slow=0.2)
        vips = {f"203.0.{n // 250}.{n % 250}": (True, "healthy", "w" * 1000) for n in range(9000)}
        async with scene.served():
            scene.tell(vips, loads=1)
            await scene.client()
            while not scene.streams._open:
                await asyncio.sleep(0.01)
            while scene.streams._open:
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_only_so_many_clients() -> None:
    """One that has gone makes room, though nothing was to be told to it."""

    async def main() -> None:
        scene = Scene(most=2)
        async with scene.served():
            for _ in range(2):
                assert await head(await scene.client()) == "HTTP/1.0 200 OK"
            third = await scene.client()
            assert (await head(third)).startswith("HTTP/1.0 503 ")
            assert json.loads(await third.read())["error"].startswith("too many clients")
            await scene.leave(0)
            while scene.streams._open > 1:
                await asyncio.sleep(0.05)
            assert await head(await scene.client()) == "HTTP/1.0 200 OK"

    asyncio.run(main())


def test_a_refusal_of_the_supervisor() -> None:
    """Is the answer."""

    async def main() -> None:
        scene = Scene()
        scene.reply = Refusal(error="no", remedy="do", fault="operator")
        async with scene.served():
            reader = await scene.client()
            assert (await head(reader)).startswith("HTTP/1.0 400 ")
            assert json.loads(await reader.read()) == {"error": "no", "remedy": "do"}
            assert scene.streams._open == 0

    asyncio.run(main())

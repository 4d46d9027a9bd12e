"""Tests of ``paraglider.daemon.web.events``: streams are bounded in number, time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

from aiohttp import web
from waiting import TIMEOUT, ends_at_its_limit

from paraglider.daemon.http.connection_limiter import ConnectionLimiter, everybody
from paraglider.daemon.http.routes import runner, server_of
from paraglider.daemon.web.events import Streams
from paraglider.daemon.web.feed import Feed

ASK = b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n"


class Source:
    """A feed of samples of ``size`` bytes, as fast as they are read."""

    def __init__(self, size: int, most: int = 1 << 30) -> None:
        self.text = b"x" * size
        self.most = most
        self.given = 0
        self.ended = asyncio.Event()  # a stream is over

    async def after(self, number: int) -> tuple[int, bytes]:
        """The next sample; there are ``most``."""
        await asyncio.sleep(0.001)
        if number >= self.most:
            await asyncio.Event().wait()
        self.given = max(self.given, number + 1)
        return number + 1, self.text


@contextlib.asynccontextmanager
async def served(
    source: Source, lifetime: float = TIMEOUT, **bounds: Any
) -> AsyncIterator[tuple[str, int]]:
    """The address where the streams of ``source`` are served, other connections for ``lifetime``
    seconds.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    doors: list[ConnectionLimiter] = []

    def keep(transport: asyncio.BaseTransport | None, seconds: float) -> None:
        doors[0].keep(transport, seconds)

    streams = Streams(cast(Feed, source), keep, **bounds)
    app = web.Application()

    async def serve(request: web.Request) -> web.StreamResponse:
        try:
            return await streams.serve(request)
        finally:
            source.ended.set()

    app.router.add_get("/events", serve)
    made = runner(app)
    await made.setup()
    doors.append(ConnectionLimiter(listening, everybody, server_of(made), lifetime=lifetime))
    try:
        yield listening.getsockname()[:2]
    finally:
        doors[0].close()
        await made.cleanup()
        listening.close()


def test_samples_come_until_the_end() -> None:
    """Each sample is an event; a stream outlives other connections, and ends cleanly."""

    async def main(limit: int) -> bytes:
        async with served(Source(3, most=5), lifetime=limit, longest=2.0 * limit) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(ASK)
            text = b""
            with contextlib.suppress(ConnectionResetError):  # its time was over before it asked
                text = await asyncio.wait_for(reader.read(), 2 * TIMEOUT)
            writer.close()
            return text

    def read(limit: int) -> tuple[list[bool], int]:
        text = asyncio.run(main(limit))
        parts = (b"200 OK", b"Content-Type: text/event-stream", b"retry: 2000\n\n")
        ended = text.endswith(b"0\r\n\r\n")
        return [*(part in text for part in parts), ended], text.count(
            b"event: sample\ndata: xxx\n\n"
        )

    ends_at_its_limit(read, lambda _: ([True] * 4, 5))


def test_a_reader_that_hangs_is_disconnected() -> None:
    """A reader that hangs is disconnected, and the buffer for it stays small."""

    async def main() -> int:
        source = Source(100_000)
        async with served(source, slow=0.2) as address:
            one = socket.create_connection(address)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            one.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(one, ASK)
            await asyncio.wait_for(source.ended.wait(), TIMEOUT)
            given = source.given
            with contextlib.suppress(ConnectionResetError):
                while await asyncio.wait_for(loop.sock_recv(one, 1 << 16), TIMEOUT):
                    pass
            one.close()
            # Its place is free: another reader is served.
            reader, writer = await asyncio.open_connection(*address)
            writer.write(ASK)
            assert b"200 OK" in await reader.readline()
            writer.close()
        return given

    assert asyncio.run(main()) < 100  # ten megabytes, whatever the buffers of the kernel


def test_streams_are_few() -> None:
    """One above the limit is refused, and admitted after another has ended."""

    async def first(address: tuple[str, int]) -> tuple[bytes, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(ASK)
        return await asyncio.wait_for(reader.readline(), TIMEOUT), writer

    async def main() -> None:
        async with served(Source(3), most=2) as address:
            kept = [await first(address) for _ in range(2)]
            assert all(b"200" in line for line, _ in kept)
            line, writer = await first(address)
            assert b"503" in line
            writer.close()
            kept[0][1].close()
            while b"200" not in (await first(address))[0]:
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))

"""Tests of ``paraglider.control.api.door``: few connections at a time, and none for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from paraglider.control.api.door import Door, everybody


class Echo(asyncio.Protocol):
    """Says hello, and what it hears."""

    transports: list[asyncio.BaseTransport]

    def __init__(self, transports: list[asyncio.BaseTransport]) -> None:
        self.transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self.transports.append(transport)
        transport.write(b"hello")


@contextlib.asynccontextmanager
async def door(admit: Any = everybody, **bounds: Any) -> AsyncIterator[tuple[Door, Any, Any]]:
    """A door, its address, and the transports behind it."""
    listening = socket.create_server(("127.0.0.1", 0))
    transports: list[asyncio.BaseTransport] = []
    made = Door(listening, admit, lambda: Echo(transports), **bounds)
    try:
        yield made, listening.getsockname(), transports
    finally:
        made.close()
        listening.close()


async def first(address: Any) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """What a new connection hears first."""
    reader, writer = await asyncio.open_connection(*address)
    return await asyncio.wait_for(reader.read(1000), 20), reader, writer


def test_strangers_are_told() -> None:
    """Who is not admitted hears why, and is let go."""

    async def main() -> None:
        async with door(lambda _: (403, "not you")) as (_, address, transports):
            said, _, writer = await first(address)
            assert said.startswith(b"HTTP/1.1 403 ")
            assert b'{"error": "not you"}' in said
            assert not transports
            writer.close()

    asyncio.run(main())


def test_few_at_a_time() -> None:
    """One too many hears so; when one goes, the next is let in."""

    async def main() -> None:
        async with door(most=2) as (_, address, _transports):
            kept = [await first(address) for _ in range(2)]
            assert [said for said, _, _ in kept] == [b"hello", b"hello"]
            said, _, writer = await first(address)
            assert b" 503 " in said
            writer.close()
            kept[0][2].close()
            while (await first(address))[0] != b"hello":
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_none_for_ever() -> None:
    """A connection is ended when its time is over; one that is kept lives on."""

    async def main() -> None:
        async with door(lifetime=0.1) as (made, address, transports):
            _, kept, writer = await first(address)
            made.keep(transports[0], 60.0)
            _, ended, other = await first(address)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(ended.read(), 20) == b""
            assert not kept.at_eof()
            assert not transports[0].is_closing()
            writer.close()
            other.close()

    asyncio.run(main())

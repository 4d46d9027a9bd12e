"""Tests of ``daemon.http.connection_limiter``: few connections at a time, and none for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

from waiting import TIMEOUT, ends_at_its_limit

from paraglider.daemon.http.connection_limiter import (
    Client,
    ConnectionLimiter,
    Shares,
    client_of,
    everybody,
)


class Echo(asyncio.Protocol):
    """Sends hello, and echoes its input."""

    transports: list[asyncio.BaseTransport]

    def __init__(self, transports: list[asyncio.BaseTransport]) -> None:
        self.transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send hello."""
        assert isinstance(transport, asyncio.Transport)
        self.transports.append(transport)
        transport.write(b"hello")


@contextlib.asynccontextmanager
async def door(
    admit: Any = everybody, **bounds: Any
) -> AsyncIterator[tuple[ConnectionLimiter, Any, Any]]:
    """A door, its address, and the transports behind it."""
    listening = socket.create_server(("127.0.0.1", 0))
    transports: list[asyncio.BaseTransport] = []
    made = ConnectionLimiter(listening, admit, lambda: Echo(transports), **bounds)
    try:
        yield made, listening.getsockname(), transports
    finally:
        made.close()
        listening.close()


async def first(address: Any) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """The first bytes of a new connection."""
    reader, writer = await asyncio.open_connection(*address)
    return await asyncio.wait_for(reader.read(1000), TIMEOUT), reader, writer


def test_a_refused_connection_gets_the_reason() -> None:
    """A refused connection gets the reason, and is closed."""

    async def main() -> None:
        async with door(lambda _: (403, "not you")) as (_, address, transports):
            said, _, writer = await first(address)
            assert said.startswith(b"HTTP/1.1 403 ")
            assert b'{"error": "not you"}' in said
            assert not transports
            writer.close()

    asyncio.run(main())


def test_few_at_a_time() -> None:
    """One above the limit gets the reason; after one has closed, the next is admitted."""

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

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


def test_none_for_ever() -> None:
    """A connection is ended when its time is over; one that is kept lives on."""

    async def main(limit: int) -> list[bool]:
        async with door(lifetime=limit) as (made, address, transports):
            _, kept, writer = await first(address)
            made.keep(transports[0], 60.0 + limit)
            _, ended, other = await first(address)
            over = await is_over(ended)
            found = [over, kept.at_eof(), transports[0].is_closing()]
            writer.close()
            other.close()
            return found

    ends_at_its_limit(lambda limit: asyncio.run(main(limit)), lambda _: [True, False, False])


async def come(address: Any, source: str) -> tuple[bytes, asyncio.StreamReader]:
    """A connection from ``source``, and its first bytes."""
    reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0))
    said = await asyncio.wait_for(reader.read(1000), TIMEOUT)
    held.append(writer)
    return said, reader


held: list[asyncio.StreamWriter] = []


def sharing(**bounds: int) -> Shares:
    """Shares of clients identified by their loopback address; 127.0.0.1 is local."""

    def client(end: socket.socket) -> Client:
        found = client_of(end)
        return Client(found.name, found.name == "127.0.0.1")

    return Shares(client=client, **bounds)


async def is_over(reader: asyncio.StreamReader) -> bool:
    """Whether a connection was ended; waits for it."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), TIMEOUT) == b""
    return True


def test_a_client_has_its_share() -> None:
    """A client with its maximum loses its oldest connection for a new one; others keep theirs."""

    async def main() -> None:
        async with door(most=9, shares=sharing(each=2, reserve=1)) as (made, address, transports):
            other, mine = [
                [await come(address, source) for _ in range(2)]
                for source in ("127.0.0.3", "127.0.0.2")
            ]
            said, third = await come(address, "127.0.0.2")
            assert said == b"hello"
            assert await is_over(mine[0][1])
            assert [t.is_closing() for t in transports] == [False, False, True, False, False]
            for transport in transports[3:]:
                made.keep(transport, 60.0)  # streams give way to nobody
            assert b" 503 " in (await come(address, "127.0.0.2"))[0]
            assert not third.at_eof()
            assert not any(reader.at_eof() for _, reader in other)

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


def test_slow_clients_do_not_exclude_others() -> None:
    """For any number of connections of one or many clients, the next client is admitted: a monitor
    on this host, which has reserved places, and a remote one.
    """

    async def main() -> None:
        async with door(most=6, shares=sharing(each=4, reserve=2)) as (_, address, transports):
            for source in ("127.0.0.2", "127.0.0.3"):
                for _ in range(6):
                    assert (await come(address, source))[0] == b"hello"
            live = [one for one in transports if not one.is_closing()]
            assert len(live) == 4
            for _ in range(2):
                assert (await come(address, "127.0.0.1"))[0] == b"hello"
            assert all(not one.is_closing() for one in live)
            for number in range(4, 12):
                assert (await come(address, f"127.0.0.{number}"))[0] == b"hello"
            assert sum(not one.is_closing() for one in transports) == 6
            for _ in range(8):  # those of this host take no more than is free, then their own
                assert (await come(address, "127.0.0.1"))[0] == b"hello"
            assert (await come(address, "127.0.0.20"))[0] == b"hello"
            assert sum(not one.is_closing() for one in transports) == 6

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


def test_the_client_of_a_connection() -> None:
    """An IPv4 address, or the network of an IPv6 one; a closed connection has no client."""

    class End:
        def __init__(self, *name: Any) -> None:
            self.name = name

        def getpeername(self) -> Any:
            if not self.name:
                raise OSError
            return self.name

    def of(*name: Any) -> Client:
        return client_of(cast(socket.socket, End(*name)))

    assert of("192.0.2.1", 80) == Client("192.0.2.1")
    assert of("127.0.0.9", 80) == Client("127.0.0.9", near=True)
    assert of("::1", 80, 0, 0).near
    assert of("2001:db8::1", 80, 0, 0) == of("2001:db8::2:3", 81, 0, 0) != of("2001:db9::1", 80)
    assert of("fe80::1%eth0", 80) == of("fe80::2%eth1", 80)
    assert of() == Client("")

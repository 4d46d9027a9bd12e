"""Tests of ``paraglider.lab.traffic``: something to see, without an end."""

from __future__ import annotations

import asyncio

from waiting import TIMEOUT

from paraglider.lab.traffic import PERIOD, RATE, pause, visit


def test_the_tide() -> None:
    """The rate of connections varies around the given one."""

    def mean(now: float) -> float:
        return sum(pause(now) for _ in range(2000)) / 2000

    assert mean(PERIOD / 4) < 1 / RATE < mean(PERIOD * 3 / 4)


def test_a_visit() -> None:
    """A visit reads some bytes and closes; one without an answer ends too."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await asyncio.wait_for(visit("127.0.0.1", port), TIMEOUT)
        server.close()
        await asyncio.wait_for(visit("127.0.0.1", port), TIMEOUT)

    asyncio.run(main())
    assert len(asked) == 1
    assert asked[0].startswith(b"GET /bytes/")

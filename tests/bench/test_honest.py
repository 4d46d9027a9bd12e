"""Honest clients, against a server of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from bench import honest

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def measured(every: int) -> dict[str, float]:
    """What is found where every so many connections are left without an answer."""
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        silent = opened > 1 and opened % every == 0
        while await reader.read(1024):
            if not silent:
                writer.write(ANSWER)
            if silent or opened > 1:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        return await honest.run("127.0.0.1", port, 100, 0.2)


@pytest.mark.parametrize(("every", "kept"), [(1000, 20), (2, 10)])
def test_answers_are_counted(every: int, kept: int) -> None:
    """Connections without an answer are not kept; the one that stays is measured beside them."""
    found = asyncio.run(measured(every))
    assert (found["tried"], found["kept"]) == (20, kept)
    assert 0 < found["p50"] <= found["p99"]

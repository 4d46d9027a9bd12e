"""Honest clients, against a server of the test's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bench import honest

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def measured(every: int, *more: Any) -> dict[str, float]:
    """The results with some connections left unanswered; ``more`` are
    arguments of ``honest.run``.
    """
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
        return await honest.run("127.0.0.1", port, 100, 0.2, *more)


@pytest.mark.parametrize(("every", "kept"), [(1000, 20), (2, 10)])
def test_answers_are_counted(every: int, kept: int) -> None:
    """Connections without an answer are not kept; the one that stays is measured beside them."""
    found = asyncio.run(measured(every))
    assert (found["tried"], found["kept"]) == (20, kept)
    assert 0 < found["p50"] <= found["p99"]


class Echo(asyncio.DatagramProtocol):
    """Echoes datagrams, except those of every second client."""

    def __init__(self) -> None:
        self.clients: list[Any] = []

    def connection_made(self, transport: Any) -> None:
        """See ``asyncio``."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """See ``asyncio``."""
        if addr not in self.clients:
            self.clients.append(addr)
        if not self.clients.index(addr) % 2:
            self.transport.sendto(data, addr)


def test_new_clients_and_datagrams() -> None:
    """New clients come from addresses of their own, UDP flows with and without an answer are
    counted.
    """

    async def run() -> dict[str, float]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        try:
            return await measured(1000, port, "127.1.0.0/24")
        finally:
            transport.close()

    found = asyncio.run(run())
    assert (found["new_tried"], found["new_kept"]) == (10, 10)
    assert (found["udp_tried"], found["udp_kept"]) == (10, 5)
    assert 0 < found["udp_p50"] <= found["udp_p99"]

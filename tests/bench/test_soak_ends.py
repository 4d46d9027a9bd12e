"""Both ends of the soak over loopback: an intact flow, and every way to lose one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
from waiting import TIMEOUT

from bench.soak_ends import Flow, Load, connection, datagrams, numbers, serve


def free_port() -> int:
    """A port that is free for TCP and UDP."""
    while True:
        with socket.socket() as one, socket.socket(type=socket.SOCK_DGRAM) as other:
            one.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):  # another process has it for UDP
                other.bind(one.getsockname())
                return int(one.getsockname()[1])


async def until(condition: Callable[[], object]) -> None:
    """Wait for it."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.01)


def test_flows_without_faults(capsys: pytest.CaptureFixture[str]) -> None:
    """A transfer goes on, an echo comes back, datagrams are answered: nothing is lost."""

    async def run() -> None:
        port = free_port()
        server = asyncio.create_task(serve("backend1", port, ["127.0.0.1"]))
        await until(lambda: "listening" in capsys.readouterr().out)
        load = Load()
        for kind in ("udp", "echo", "transfer"):
            load.begin(kind, "127.0.0.1", port)
        await until(lambda: all(flow.seen for flow in load.flows) or load.lost())
        first = [flow.seen for flow in load.flows]
        await until(lambda: all(f.seen > s for f, s in zip(load.flows, first, strict=True)))
        assert load.lost() == 0
        rows = load.result()["flows"]
        assert [(row["kind"], row["open"], row["lost"]) for row in rows] == [
            ("echo", 1, 0),
            ("transfer", 1, 0),
            ("udp", 1, 0),
        ]
        for task in (*load.tasks, server):
            task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("kind", "answer", "why"),
    [
        ("transfer", numbers(1, 64), "not those that were sent"),
        ("transfer", b"", "IncompleteReadError|0 bytes read"),
        ("echo", b"7\n", "another's"),
        ("echo", b"", "closed"),
    ],
)
def test_a_connection_that_is_lost(kind: str, answer: bytes, why: str) -> None:
    """By wrong bytes and by its end."""

    async def run() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((ValueError, OSError, asyncio.IncompleteReadError), match=why):
            await asyncio.wait_for(connection(Flow(kind, 4), "127.0.0.1", port), TIMEOUT)
        server.close()

    asyncio.run(run())


def test_datagrams_that_another_backend_answers() -> None:
    """A flow of UDP that has moved is lost."""

    class Moving(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.count = 0

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, _data: bytes, address: Any) -> None:
            self.count += 1
            self.transport.sendto(b"backend%d x" % self.count, address)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Moving, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        with pytest.raises(ValueError, match="another backend"):
            await asyncio.wait_for(datagrams(Flow("udp", 4), "127.0.0.1", port), TIMEOUT)
        transport.close()

    asyncio.run(run())


def test_a_connection_that_ends_is_opened_once_more() -> None:
    """With the option: it is counted, but not as lost."""

    async def run() -> None:
        met: list[int] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            met.append(len(met))
            await reader.readline()
            while (line := await reader.readline()) and (met != [0] or line == b"0\n"):
                writer.write(line)
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        load = Load(again=True)
        load.begin("echo", "127.0.0.1", server.sockets[0].getsockname()[1])
        await until(lambda: load.count() == {"ended": 1, "open": 1})
        assert load.lost() == 0
        for task in load.tasks:
            task.cancel()
        server.close()

    asyncio.run(run())

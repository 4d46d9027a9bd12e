"""Flows that go on, and new connections, over loopback."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import TIMEOUT, wait_until

PROGRAM = [sys.executable, "-m", "paraglider.lab.lasting"]
LOOPBACK = ["127.0.0.1", "::1"]


def free_port() -> int:
    """A port where nobody listens."""

    async def find() -> int:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), None, 0)
        port: int = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return port

    return asyncio.run(find())


@pytest.fixture
def server() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The server, and its port."""
    port = free_port()
    process = subprocess.Popen([*PROGRAM, "serve", str(port)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"listening\n"
    yield port, process
    process.kill()
    process.communicate(timeout=TIMEOUT)


class Client:
    """A client of the server at ``port``."""

    def __init__(self, protocol: str, port: int, *numbers: float) -> None:
        arguments = [protocol, str(port), *map(str, numbers), *LOOPBACK]
        self._process = subprocess.Popen(
            [*PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, line: bytes = b"\n") -> dict[str, Any]:
        """What it reports."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def end(self) -> int:
        """Close its input, and wait for its end."""
        self._process.communicate(timeout=TIMEOUT)
        return self._process.returncode


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_flows_go_on(server: tuple[int, object], protocol: str) -> None:
    """Both kinds, over both families, until the input ends."""
    client = Client(protocol, server[0], 2, 1, 0)
    wait_until(lambda: max(client.ask()["silent"]) < 5)
    found = client.ask()
    assert (found["errors"], len(found["silent"])) == ([], 6)
    assert (found["opened"], found["failed"], found["waiting"]) == (0, 0, 0)
    assert client.end() == 0


def test_flows_that_break(server: tuple[int, subprocess.Popen[bytes]]) -> None:
    """Each is reported with its error."""
    port, process = server
    client = Client("tcp", port, 1, 1, 0)
    wait_until(lambda: max(client.ask()["silent"]) < 5)
    process.kill()
    wait_until(lambda: len(client.ask()["errors"]) == 4)
    assert set(client.ask()["errors"]) <= {"closed", "ECONNRESET", "EPIPE"}
    assert client.ask()["silent"] == []
    assert client.end() == 0


def test_new_connections(server: tuple[int, subprocess.Popen[bytes]]) -> None:
    """They are counted since the last `begin`; those that fail are counted as such."""
    port, process = server
    client = Client("tcp", port, 0, 0, 50)
    wait_until(lambda: client.ask()["opened"] > 20)
    found = client.ask(b"begin\n")
    assert found["opened"] < 20
    wait_until(lambda: client.ask()["opened"] > 20)
    found = client.ask()
    assert found["failed"] == 0
    assert found["slowest"] > 0
    process.kill()
    wait_until(lambda: client.ask()["failed"] > 20)
    assert client.end() == 0

"""Tests of ``paraglider.health.probes.tcp``: against real sockets of this host."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from paraglider.health.codes import Code
from paraglider.health.probes.base import CheckResult
from paraglider.health.probes.tcp import Tcp


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_accepted(probing: Callable[..., CheckResult], address: str) -> None:
    """A server that accepts passes; its connection is closed without a byte."""
    replied: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replied.append(await reader.read())
        writer.close()

    found = probing(Tcp(), handler, address=address, timeout=30)
    assert (found.code, found.detail) == (Code.L4OK, "connected")
    assert replied in ([], [b""])


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_refused(probing: Callable[..., CheckResult], address: str) -> None:
    """A refused connection fails with the kernel's error."""
    found = probing(Tcp(), address=address, port=1, timeout=30)
    assert (found.code, found.detail) == (Code.L4CON, "connect: connection refused")


def test_silence(probing: Callable[..., CheckResult]) -> None:
    """A host that drops what comes, as one does whose backlog is full, runs into the time."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        found = probing(Tcp(), port=address[1], timeout=0.2)
        for filler in fillers:
            filler.close()
    assert (found.code, found.detail) == (Code.L4TOUT, "connect timed out after 0.2 s")

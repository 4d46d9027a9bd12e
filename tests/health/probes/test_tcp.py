"""Tests of ``paraglider.health.probes.tcp``: against real sockets of this host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paraglider.health.codes import Code
from paraglider.health.probes.base import CheckResult
from paraglider.health.probes.exchange import LIMIT
from paraglider.health.probes.tcp import Tcp

ANSWERS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
#: as of a mail server: a banner, a command, and a byte above 127
MAIL = [
    {"expect": "^220 "},
    {"send": r"EHLO x\r\n", "expect": r"250 .*\n"},
    {"send": r"\x00\xff", "expect": "^bye$"},
]


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


def saying(*parts: bytes, pause: float = 0.0, rest: str = "close") -> Handler:
    """A server that sends ``parts``, then closes, resets, hangs, or repeats the last one."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
            while rest == "repeat":
                writer.write(parts[-1])
                await writer.drain()
            if rest == "hang":
                await reader.read()
        if rest == "reset":
            writer.transport.abort()
        writer.close()

    return handler


def test_steps(probing: Callable[..., CheckResult]) -> None:
    """A conversation: each step has its answer, and the bytes of the escapes are sent."""
    heard: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        heard.append(await reader.readline())
        writer.write(b"250-mail\r\n250 OK\r\n")
        heard.append(await reader.readexactly(2))
        writer.write(b"bye")
        await reader.read()
        writer.close()

    found = probing(Tcp(), handler, steps=MAIL, timeout=30)
    assert (found.code, found.detail) == (Code.L7OK, "received 'bye'")
    assert heard == [b"EHLO x\r\n", b"\0\xff"]


@pytest.mark.parametrize(
    ("handler", "code", "detail"),
    [
        (saying(b"554 no\r\n"), Code.L7RSP, r"closed the connection after '554 no\r\n'"),
        (saying(), Code.L7RSP, "closed the connection without an answer"),
        (saying(rest="hang"), Code.L7TOUT, "step 1 timed out after 0.4 s"),
        (
            saying(b"554 no\r\n", rest="hang"),
            Code.L7TOUT,
            r"step 1, after '554 no\r\n', timed out after 0.4 s",
        ),
        (saying(b"22", rest="reset"), Code.L7RSP, "answer: connection reset by peer"),
        (
            saying(b"x" * 1000, rest="repeat"),
            Code.L7RSP,
            f"more than {LIMIT} bytes came: '{'x' * 60}'...",
        ),
    ],
)
def test_failing_steps(
    probing: Callable[..., CheckResult], handler: Handler, code: Code, detail: str
) -> None:
    """A server that says something else, closes, resets, hangs, or never stops."""
    seconds = 0.4 if code is Code.L7TOUT else 30
    found = probing(Tcp(), handler, steps=MAIL, timeout=seconds)
    assert found.code is code
    # a reset may come before the bytes ahead of it were read
    assert found.detail == detail or "reset" in detail


def test_a_byte_at_a_time(probing: Callable[..., CheckResult]) -> None:
    """An answer in pieces is put together; one that comes too slowly runs into the time."""
    parts = [bytes([letter]) for letter in b"220 mail"]
    steps = MAIL[:1]
    found = probing(Tcp(), saying(*parts, rest="hang"), steps=steps, timeout=30)
    assert found.code is Code.L7OK
    slow = saying(*parts, pause=60)
    found = probing(Tcp(), slow, steps=steps, timeout=0.5)
    assert (found.code, found.detail[:15]) == (Code.L7TOUT, "step 1, after '")


@ANSWERS
@given(parts=st.lists(st.binary(max_size=200), max_size=4))
def test_any_answer(probing: Callable[..., CheckResult], parts: list[bytes]) -> None:
    """Whatever comes matches, or does not: nothing else happens."""
    found = probing(Tcp(), saying(*parts), steps=[{"expect": "ok"}], timeout=60)
    assert found.code is (Code.L7OK if b"ok" in b"".join(parts) else Code.L7RSP)
    assert found.detail.isprintable()

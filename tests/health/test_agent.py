"""Tests of ``paraglider.health.agent``: HAProxy's words, and agents that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.health import AgentCheck
from paraglider.health.agent import LONGEST, MOST_PERCENT, AgentAnswer, ask, parse
from paraglider.health.codes import Code
from paraglider.health.probes.base import CheckResult
from paraglider.health.targets import Target

LOCAL = ipaddress.ip_address("127.0.0.1")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.mark.parametrize(
    ("line", "weight", "mode", "up"),
    [
        (b"75%\r\n", 75, None, None),
        (b"0%", 0, None, None),
        (b"9999%", MOST_PERCENT, None, None),
        (b"up", None, None, True),
        (b"down", None, None, False),
        (b"stopped", None, None, False),
        (b"fail#disk full, 75% up", None, None, False),
        (b"ready", None, "ready", None),
        (b"DRAIN", None, "drain", None),
        (b"maint, up 50%", 50, "maint", True),
        (b"maxconn:30\tready,,up", None, "ready", True),
    ],
)
def test_words(line: bytes, weight: int | None, mode: str | None, up: bool | None) -> None:
    """Each word sets its own, and what is behind a # is for people."""
    said = parse(line)
    assert (said.weight, said.mode, said.up) == (weight, mode, up)
    assert said.detail == line.decode().strip()


@pytest.mark.parametrize("line", [b"", b"maxconn:30", b"75", b"-5%", b"10000%", b"#up", b"hello"])
def test_no_words(line: bytes) -> None:
    """A line without a word of the protocol says nothing."""
    with pytest.raises(ValueError, match="no word"):
        parse(line)


def test_what_is_not_mentioned_stays() -> None:
    """Each line adds to those before."""
    said = parse(b"50% drain down").merged(parse(b"up"))
    assert said == AgentAnswer(50, "drain", True, "up")


@given(line=st.binary(max_size=100))
def test_any_line(line: bytes) -> None:
    """Whatever comes has a meaning or a ValueError, and the weight is within its bounds."""
    with contextlib.suppress(ValueError):
        weight = parse(line).weight
        assert weight is None or 0 <= weight <= MOST_PERCENT


def asked(handler: Handler, **agent: object) -> tuple[AgentAnswer | None, CheckResult]:
    """What comes of asking a server that behaves like ``handler``."""

    async def body() -> tuple[AgentAnswer | None, CheckResult]:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = AgentCheck.model_validate({"port": port, "timeout": 30, **agent})
        try:
            return await ask(Target("web", "a", LOCAL, 80, None), settings)
        finally:
            server.close()

    return asyncio.run(body())


def saying(*parts: bytes, rest: str = "close") -> Handler:
    """An agent that says ``parts``, and closes, hangs, or goes on with the last one."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            while rest == "repeat":
                writer.write(parts[-1])
                await writer.drain()
            if rest == "hang":
                await reader.read()
        writer.close()

    return handler


@pytest.mark.parametrize(
    ("handler", "code", "detail"),
    [
        (saying(b"75%\n"), Code.L7OK, "75%"),
        (saying(b"7", b"5", b"%"), Code.L7OK, "75%"),
        (saying(b"75%\nrest", rest="hang"), Code.L7OK, "75%"),
        (saying(b"75%", rest="hang"), Code.L7TOUT, "answer timed out after 0.4 s"),
        (saying(), Code.L7RSP, "closed the connection without an answer"),
        (saying(b"\x1b\xff\n"), Code.L7RSP, r"'\x1b\xff': no word of the protocol"),
        (
            saying(b"75% ", rest="repeat"),
            Code.L7RSP,
            f"more than {LONGEST} bytes came: '{'75% ' * 15}'...",
        ),
    ],
)
def test_agents(handler: Handler, code: Code, detail: str) -> None:
    """A line, which may come in pieces and end with the connection; else the answer is None."""
    said, result = asked(handler, timeout=0.4 if code is Code.L7TOUT else 30)
    assert (result.code, result.detail) == (code, detail)
    assert (None if said is None else said.weight) == (75 if code is Code.L7OK else None)


def test_an_agent_that_is_asked_for_something() -> None:
    """`send` is sent, with the bytes of its escapes."""
    heard: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        writer.write(b"up\n")
        writer.close()

    said, _ = asked(handler, send=r"web\n")
    assert (heard, said) == ([b"web\n"], AgentAnswer(up=True, detail="up"))

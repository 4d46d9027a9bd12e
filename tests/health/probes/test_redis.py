"""Tests of ``paraglider.health.probes.redis``: a server that answers by its commands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paraglider.config.diagnostics import ConfigError
from paraglider.forward.load import parse
from paraglider.health.codes import Code
from paraglider.health.probes.base import CheckResult
from paraglider.health.probes.redis import Redis

ANSWERS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def serving(heard: list[list[bytes]], **answers: bytes) -> Handler:
    """A server that answers each command by its name, and closes at one that it does not have."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readline():
                assert head.startswith(b"*")
                words = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                heard.append(words)
                answer = answers.get(words[0].decode())
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()

    return handler


def checked(
    probing: Callable[..., CheckResult], handler: Handler, timeout: float = 30, **parameters: str
) -> CheckResult:
    """The check of a server."""
    settings: dict[str, Any] = {"type": "redis", "timeout": timeout, "parameters": parameters}
    return probing(Redis(), handler, **settings)


@pytest.mark.parametrize(
    ("parameters", "commands"),
    [
        ({}, [[b"PING"]]),
        ({"password": "ge heim"}, [[b"AUTH", b"ge heim"], [b"PING"]]),
        ({"username": "lb", "password": "ä"}, [[b"AUTH", b"lb", "ä".encode()], [b"PING"]]),
    ],
)
def test_pong(
    probing: Callable[..., CheckResult], parameters: dict[str, str], commands: list[list[bytes]]
) -> None:
    """PING after AUTH, which has a user if one is given."""
    heard: list[list[bytes]] = []
    handler = serving(heard, AUTH=b"+OK\r\n", PING=b"+PONG\r\n")
    found = checked(probing, handler, **parameters)
    assert (found.code, found.detail, heard) == (Code.L7OK, "PONG", commands)


@pytest.mark.parametrize(
    ("answers", "code", "detail"),
    [
        ({"PING": b"-NOAUTH no.\r\n"}, Code.L7STS, "PING: NOAUTH no."),
        ({"PING": b"-LOADING \x1b\xff\r\n"}, Code.L7STS, "PING: LOADING \ufffd"),
        ({"PING": b"HTTP/1.1 400\r\n"}, Code.L7RSP, "PING: 'HTTP/1.1 400' is not PONG"),
        ({"PING": b"\r\n"}, Code.L7RSP, "PING: '' is not PONG"),
        ({}, Code.L7RSP, "closed the connection without an answer"),
        ({"PING": b"+PO"}, Code.L7TOUT, "PING timed out after 0.4 s"),
        ({"PING": b"x" * 100_000}, Code.L7RSP, f"more than 16384 bytes came: '{'x' * 60}'..."),
    ],
)
def test_answers(
    probing: Callable[..., CheckResult], answers: dict[str, bytes], code: Code, detail: str
) -> None:
    """Errors are statuses, and what is no answer of Redis is an invalid one."""
    timeout = 0.4 if code is Code.L7TOUT else 30
    found = checked(probing, serving([], **answers), timeout)
    assert (found.code, found.detail) == (code, detail)


def test_a_wrong_password(probing: Callable[..., CheckResult]) -> None:
    """It fails the check, which does not go on, nor repeat it."""
    heard: list[list[bytes]] = []
    handler = serving(heard, AUTH=b"-WRONGPASS no\r\n", PING=b"+PONG\r\n")
    found = checked(probing, handler, password="secret")
    assert (found.code, found.detail, len(heard)) == (Code.L7STS, "AUTH: WRONGPASS no", 1)


@ANSWERS
@given(answer=st.binary(max_size=200))
def test_any_answer(probing: Callable[..., CheckResult], answer: bytes) -> None:
    """Whatever comes has a code of layer 7."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    found = checked(probing, handler, timeout=60)
    right = answer.partition(b"\n")[0].rstrip(b"\r") == b"+PONG" and b"\n" in answer
    assert found.code in ((Code.L7OK,) if right else (Code.L7STS, Code.L7RSP))
    assert found.detail.isprintable()


def test_a_user_without_a_password() -> None:
    """It is a mistake."""
    text = "services: [{name: a, vip: 192.0.2.1, protocol: tcp, ports: 6379, backends: [10.0.0.1],"
    with pytest.raises(ConfigError, match="`username` without `password`; add `password`"):
        parse(f"{text} check: {{type: redis, parameters: {{username: a}}}}}}]", "f")

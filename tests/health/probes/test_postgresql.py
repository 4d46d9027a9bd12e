"""Tests of ``paraglider.health.probes.postgresql``: a server that answers what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paraglider.config.diagnostics import ConfigError
from paraglider.forward.load import parse
from paraglider.health.codes import Code
from paraglider.health.probes.base import CheckResult
from paraglider.health.probes.postgresql import Postgresql

ANSWERS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
USER = {"user": "lb"}


def message(kind: bytes, body: bytes) -> bytes:
    """A message of the server."""
    return kind + struct.pack(">I", len(body) + 4) + body


STARTING = message(b"E", b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0")
SASL = message(b"R", struct.pack(">I", 10) + b"SCRAM-SHA-256\0\0")


def serving(answer: bytes, heard: list[bytes], *, close: bool = True) -> Handler:
    """A server that reads one message of a client and answers."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            size = int.from_bytes(await reader.readexactly(4), "big")
            heard.append(await reader.readexactly(size - 4))
            writer.write(answer)
            await writer.drain()
            if not close:
                await reader.read()
        writer.close()

    return handler


def checked(
    probing: Callable[..., CheckResult], handler: Handler, timeout: float = 30, **parameters: str
) -> CheckResult:
    """The check of a server."""
    settings: dict[str, Any] = {"type": "postgresql", "timeout": timeout}
    return probing(Postgresql(), handler, parameters=parameters, **settings)


@pytest.mark.parametrize(
    ("parameters", "sent"),
    [
        (USER, b"\0\3\0\0user\0lb\0application_name\0paraglider\0\0"),
        (
            {"user": "ü", "database": "app"},
            b"\0\3\0\0user\0\xc3\xbc\0database\0app\0application_name\0paraglider\0\0",
        ),
        ({}, b"\x04\xd2\x16\x2f"),
    ],
)
def test_what_is_sent(
    probing: Callable[..., CheckResult], parameters: dict[str, str], sent: bytes
) -> None:
    """The startup message of protocol 3.0, or an SSLRequest."""
    heard: list[bytes] = []
    checked(probing, serving(b"", heard), **parameters)
    assert heard == [sent]


@pytest.mark.parametrize(
    ("parameters", "answer", "code", "detail"),
    [
        (USER, SASL, Code.L7OK, "authentication: SASL"),
        (USER, message(b"R", bytes(4)) + b"S" * 9999, Code.L7OK, "authentication: no password"),
        (USER, STARTING, Code.L7STS, "57P03 the database system is starting up"),
        (USER, message(b"E", b"\0"), Code.L7STS, "error"),
        (USER, b"N", Code.L7RSP, "'N' is no PostgreSQL"),
        (USER, b"HTTP/1.1 400", Code.L7RSP, "'HTTP/1.1 400' is no PostgreSQL"),
        (USER, message(b"R", b"\0\0\0\x63"), Code.L7RSP, "the request for authentication is inv"),
        (USER, b"E\xff\xff\xff\xff" + bytes(99), Code.L7RSP, "an error of 4294967291 bytes"),
        (USER, b"E\0\0\0\0", Code.L7RSP, "an error of -4 bytes"),
        (USER, b"", Code.L7RSP, "closed the connection without an answer"),
        (USER, b"R\0", Code.L7RSP, r"closed the connection after '\x00'"),
        ({}, b"S", Code.L7OK, "accepts TLS"),
        ({}, b"N", Code.L7OK, "accepts connections, without TLS"),
        ({}, STARTING, Code.L7STS, "57P03 the database system is starting up"),
        ({}, b"\xff", Code.L7RSP, r"'\xff' is no PostgreSQL"),
    ],
)
def test_answers(
    probing: Callable[..., CheckResult],
    parameters: dict[str, str],
    answer: bytes,
    code: Code,
    detail: str,
) -> None:
    """A request for authentication and the answer about TLS pass; errors are statuses."""
    found = checked(probing, serving(answer, []), **parameters)
    assert found.code is code
    assert found.detail.startswith(detail)


@pytest.mark.parametrize("answer", [b"", b"R\0\0", b"E\0\0\0\x50SFATAL"])
def test_hangs(probing: Callable[..., CheckResult], answer: bytes) -> None:
    """A server that stops in the middle runs into the time."""
    found = checked(probing, serving(answer, [], close=False), 0.4, **USER)
    assert (found.code, found.detail) == (Code.L7TOUT, "answer timed out after 0.4 s")


@ANSWERS
@given(answer=st.binary(max_size=200), user=st.booleans())
def test_any_answer(probing: Callable[..., CheckResult], answer: bytes, user: bool) -> None:
    """Whatever comes has a code of layer 7."""
    for data in (answer, b"E\0\0\0\x20" + answer, b"R\0\0\0\x08" + answer):
        found = checked(probing, serving(data, []), 60, **(USER if user else {}))
        assert found.code in (Code.L7OK, Code.L7STS, Code.L7RSP)
        assert found.detail.isprintable()


def test_a_database_without_a_user() -> None:
    """It is a mistake."""
    text = "services: [{name: a, vip: 192.0.2.1, protocol: tcp, ports: 5432, backends: [10.0.0.1],"
    with pytest.raises(ConfigError, match="`database` without `user`; add `user`"):
        parse(f"{text} check: {{type: postgresql, parameters: {{database: a}}}}}}]", "f")

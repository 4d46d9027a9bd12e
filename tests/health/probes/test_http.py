"""Tests of ``paraglider.health.probes.http``: servers good and bad, with and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from waiting import ends_at_its_limit

from paraglider.health.codes import Code
from paraglider.health.probes.base import CheckResult
from paraglider.health.probes.http import BODY, Http, Https

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@pytest.fixture
def asking(probing: Callable[..., CheckResult]) -> Callable[..., CheckResult]:
    """A function that checks a server that behaves like ``handler`` with ``Http``."""

    def run(handler: Handler | None, **check: Any) -> CheckResult:
        http = Https() if check.get("type") == "https" else Http()

        @contextlib.asynccontextmanager
        async def started() -> AsyncIterator[None]:
            await http.start()
            try:
                yield
            finally:
                await http.close()

        settings = {"type": "http", "timeout": 30, **check}
        return probing(http, handler, started=started, **settings)

    return run


def answering(*parts: bytes, replied: list[bytes] | None = None, rest: str = "close") -> Handler:
    """A server that reads a request, sends ``parts`` and then closes, resets, hangs or repeats."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            if replied is not None:
                replied.append(head)
            for part in parts:
                writer.write(part)
            await writer.drain()
            while rest == "repeat":
                writer.write(parts[-1])
                await writer.drain()
            if rest == "hang":
                await reader.read()
        if rest == "reset":
            writer.transport.abort()
        writer.close()

    return handler


def status(code: int, body: bytes = b"", *headers: str) -> bytes:
    """An answer with its length."""
    lines = [f"HTTP/1.1 {code} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("code", "expect", "passed", "detail"),
    [
        (200, {}, True, "status 200"),
        (302, {}, True, "status 302"),
        (404, {}, False, "status 404, expected 200-399"),
        (503, {"status": [200, "500-510"]}, True, "status 503"),
        (302, {"status": [200, "204-206"]}, False, "status 302, expected 200, 204-206"),
    ],
)
def test_status(
    asking: Callable[..., CheckResult], code: int, expect: Any, passed: bool, detail: str
) -> None:
    """The status decides; a redirect is an answer, and is not followed."""
    answer = status(code, b"", "Location: http://127.0.0.1:1/")
    found = asking(answering(answer), expect=expect)
    assert (found.passed, found.detail) == (passed, detail)
    assert found.code is (Code.L7OK if passed else Code.L7STS)


@pytest.mark.parametrize(
    ("body", "pattern", "passed", "detail"),
    [
        (b"all is fine", "is f", True, "status 200"),
        (b"all is lost", "^fine$", False, "status 200, no '^fine$' in the body"),
        (b"\xff\xfe fine", "fine", True, "status 200"),
        (b"", "fine", False, "status 200, no 'fine' in the body"),
        (b"." * BODY + b"fine", "fine", False, "status 200, no 'fine' in the body"),
    ],
)
def test_body(
    asking: Callable[..., CheckResult], body: bytes, pattern: str, passed: bool, detail: str
) -> None:
    """The head of the body has to hold the expression."""
    found = asking(answering(status(200, body)), expect={"body": pattern})
    assert (found.passed, found.detail) == (passed, detail)
    assert found.code is (Code.L7OK if passed else Code.L7RSP)


def test_request(asking: Callable[..., CheckResult]) -> None:
    """The request has the path and the Host of the file, and the connection is not kept."""
    replied: list[bytes] = []
    asking(answering(status(200), replied=replied), path="/up?a=%20b", host="www.example.com")
    (head,) = replied
    assert head.startswith(b"GET /up?a=%20b HTTP/1.1\r\n")
    assert head.count(b"Host: ") == 1
    assert b"Host: www.example.com\r\n" in head
    assert b"Connection: close\r\n" in head


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_host_without_a_name(asking: Callable[..., CheckResult], address: str) -> None:
    """Without a Host in the file the header has the backend's address."""
    replied: list[bytes] = []
    found = asking(answering(status(200), replied=replied), address=address)
    assert found.passed
    shown = f"[{address}]" if ":" in address else address
    assert f"Host: {shown}:".encode() in replied[0]


@pytest.mark.parametrize(
    ("handler", "detail"),
    [
        (None, "connect: connection refused"),
        (answering(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "what came is no answer of HTTP"),
        (answering(bytes(range(256)) * 40), "what came is no answer of HTTP"),
        (answering(b"HTTP/1.1 9999 Odd\r\n\r\n"), "what came is no answer of HTTP"),
        (
            answering(b"HTTP/1.1 200 OK\r\n", b"A: " + b"x" * 9000, rest="repeat"),
            "what came is no answer of HTTP",
        ),
        (answering(), "closed the connection without an answer"),
        (answering(rest="reset"), "closed the connection without an answer"),
    ],
)
def test_bad_servers(
    asking: Callable[..., CheckResult], handler: Handler | None, detail: str
) -> None:
    """Another kind of server fails the check at once, and the detail says what it sent."""
    found = asking(handler, port=1)
    assert found.code is (Code.L7RSP if handler else Code.L4CON)
    assert found.detail == detail


@pytest.mark.parametrize(
    ("handler", "detail"),
    [
        (answering(rest="hang"), "answer timed out"),
        (answering(b"HTTP/1.1 200", rest="hang"), "answer timed out"),
        (
            answering(b"HTTP/1.1 100 Continue\r\n\r\n", rest="repeat"),
            "answer timed out",
        ),
        (
            answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", rest="hang"),
            "body timed out",
        ),
    ],
)
def test_servers_that_hang(
    asking: Callable[..., CheckResult], handler: Handler, detail: str
) -> None:
    """A server that never completes its answer fails at the timeout."""

    def asked(limit: int) -> tuple[Code, str]:
        found = asking(handler, timeout=limit, expect={"body": "x"})
        return found.code, found.detail

    ends_at_its_limit(asked, lambda limit: (Code.L7TOUT, f"{detail} after {limit} s"))


@pytest.mark.parametrize(("kind", "code"), [("http", Code.L7TOUT), ("https", Code.L6TOUT)])
def test_a_server_that_accepts_and_is_silent(
    asking: Callable[..., CheckResult], kind: str, code: Code
) -> None:
    """The code has the layer that the server did not get past: TLS, or the answer."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await reader.read()
        writer.close()

    ends_at_its_limit(lambda limit: asking(silent, type=kind, timeout=limit).code, lambda _: code)


@pytest.mark.parametrize("kind", ["http", "https"])
def test_a_server_that_does_not_accept(asking: Callable[..., CheckResult], kind: str) -> None:
    """A connection error has a layer-4 code, with TLS too."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        found = asking(None, type=kind, timeout=1, port=full.getsockname()[1])
        for filler in fillers:
            filler.close()
    assert found.code is Code.L4TOUT


def test_many_headers(asking: Callable[..., CheckResult]) -> None:
    """Headers without end are no answer, or run into the time: they never pass."""
    endless = answering(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 100, rest="repeat")
    found = asking(endless, timeout=5)
    assert found.passed is False


def test_endless_body(asking: Callable[..., CheckResult]) -> None:
    """With an endless body the check ends after the head."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless = answering(head, b"1000\r\n" + b"x" * 4096 + b"\r\n", rest="repeat")
    assert asking(endless).detail == "status 200"
    found = asking(endless, expect={"body": "fine"})
    assert (found.passed, found.detail) == (False, "status 200, no 'fine' in the body")


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    "head", ["Content-Type: text/event-stream", "Content-Length: 900", "Transfer-Encoding: chunked"]
)
def test_a_body_that_does_not_end(
    asking: Callable[..., CheckResult], certificate: Path, tls: bool, head: str
) -> None:
    """The check ends as soon as the expected text arrives, also in pieces: server-sent events, an
    answer that stalls, chunks.
    """
    pieces = [f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n", "dat", "a: ", "ok\n"]
    if "chunked" in head:
        pieces[1:] = [f"{len(piece):x}\r\n{piece}\r\n" for piece in pieces[1:]]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece.encode())
                await writer.drain()
                await asyncio.sleep(0.02)
            await reader.read()
        writer.close()

    secured: dict[str, Any] = {}
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        secured = {"type": "https", "tls": context, "verify": False}
    found = asking(handler, expect={"body": "data: (ok|fine)"}, **secured)
    assert (found.passed, found.detail) == (True, "status 200")
    ends_at_its_limit(
        lambda limit: (
            asking(handler, timeout=limit, expect={"body": "^data: ok$"}, **secured).detail
        ),
        lambda limit: f"body timed out after {limit} s",
    )


def test_body_that_breaks_off(asking: Callable[..., CheckResult]) -> None:
    """A server that closes before the expected text fails the check."""
    cut = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
    found = asking(cut, expect={"body": "abc"})
    assert (found.code, found.detail) == (Code.L7RSP, "closed the connection within the body")
    assert asking(cut, expect={"body": "ab"}).passed


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for www.example.com, and its key, in one file."""
    return self_signed(tmp_path_factory.mktemp("tls"), "www.example.com")


@pytest.mark.parametrize(
    ("check", "known", "passed", "detail"),
    [
        ({}, False, True, "status 200"),
        ({"host": "www.example.com", "verify": True}, True, True, "status 200"),
        (
            {"host": "www.example.com", "verify": True},
            False,
            False,
            "certificate: self-signed certificate",
        ),
        (
            {"host": "other.example.com", "verify": True},
            True,
            False,
            "certificate: Hostname mismatch, certificate is not valid for 'other.example.com'.",
        ),
    ],
)
def test_tls(
    asking: Callable[..., CheckResult],
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    check: dict[str, Any],
    known: bool,
    passed: bool,
    detail: str,
) -> None:
    """With `verify` the name and the issuer of the certificate are checked."""
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    found = asking(answering(status(200)), type="https", tls=context, **check)
    assert (found.passed, found.detail) == (passed, detail)
    assert found.code is (Code.L7OK if passed else Code.L6RSP)
    assert names == [check.get("host")]


@pytest.mark.parametrize(
    ("days", "warns"),
    [({}, True), ({"expiry": 3}, True), ({"expiry": 1}, False), ({"expiry": 0}, False)],
)
def test_a_certificate_that_ends_soon(
    asking: Callable[..., CheckResult], certificate: Path, days: dict[str, int], warns: bool
) -> None:
    """It is a warning, however the answer is read, and the check passes; this one lasts 2 days."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for body in (b"", b"fine"):
        expect = {"body": body.decode()} if body else {}
        served = answering(status(200, body))
        found = asking(served, type="https", tls=context, parameters=days, expect=expect)
        assert (found.code, found.detail) == (Code.L7OK, "status 200")
        assert found.warning.startswith("certificate expires on 20") is warns


def test_tls_of_a_server_without_it(asking: Callable[..., CheckResult]) -> None:
    """A server without TLS fails the check at once."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    found = asking(plain, type="https")
    assert found.code is Code.L6RSP
    assert found.detail.startswith("connect: TLS: ")

"""http, https: a backend passes if it answers a GET as expected.

Lives here: ``Http`` and ``Https``.
Rules: every check opens a new connection, as a new client would; redirects are not followed,
proxies of the environment not used, nothing is stored. A certificate that ends soon is a warning,
and fails no check. At most BODY bytes of a body are read, none
without an expectation about it; a check can end before the body does. The host's trusted
certificates and aiohttp are loaded when the probe is constructed, before the process gives up its
privileges; commands that only read the configuration need neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import encodings.idna  # noqa: F401 - loaded at the first name of a host else, locked in by then
import re
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check, Expect
from paraglider.core.parameter import Parameter
from paraglider.health import certificate
from paraglider.health.codes import Code
from paraglider.health.pinger import Pinger
from paraglider.health.probes.base import (
    OURS,
    Passed,
    Probe,
    ProbeError,
    ProbeStep,
    UnableError,
    phrase,
)
from paraglider.health.targets import Target

if TYPE_CHECKING:
    import aiohttp

#: most bytes of a body that are searched
BODY: Final = 64 << 10
_AGENT: Final = "paraglider"
#: seconds between two searches of a body that comes in small pieces
_PAUSE: Final = 0.01
#: patterns that may match a part of a body but not the whole: an end, a word boundary, a look-ahead
_ASKS_FOR_THE_END: Final = re.compile(r"\$|\\[ZbB]|\(\?[=!]")


class _Attempt:
    """How far the connection of a check has come."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.established = False
        self.certificate: bytes | None = None

    @property
    def timeout(self) -> Code:
        """The code where the time is over now: of TCP, of TLS, or of the answer."""
        if self.established:
            return Code.L7TOUT
        with contextlib.suppress(OSError):
            if self.socket is not None:
                self.socket.getpeername()  # raises if it is not connected
                return Code.L6TOUT
        return Code.L4TOUT


#: of the check that runs in this task
_attempt: contextvars.ContextVar[_Attempt] = contextvars.ContextVar("attempt")


def _socket(address: Any) -> socket.socket:
    """The socket for a connection of the check that runs."""
    family, kind, protocol, *_ = address
    made = _attempt.get().socket = socket.socket(family, kind, protocol)
    return made


class _TlsObject(ssl.SSLObject):
    """Notes the server's certificate: a response has no connection any more once it is read."""

    def do_handshake(self) -> None:
        """See ``ssl.SSLObject``."""
        super().do_handshake()
        _attempt.get().certificate = self.getpeercert(binary_form=True)


async def _established(*_: Any) -> None:
    _attempt.get().established = True


def _import() -> None:
    global aiohttp  # noqa: PLW0603 - imported late, once, and known by its own name
    import aiohttp


class Http(Probe):
    """Sends a GET over a new connection, and checks status and body."""

    name = "http"
    summary = "answers a GET with the expected status and body"
    keys = frozenset({"port", "path", "host", "expect"})
    needs_port = True
    tls: ClassVar[bool] = False

    def __init__(self, echo: Pinger | None = None) -> None:
        super().__init__(echo)
        _import()
        self._trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._trusting.check_hostname = False
        self._trusting.verify_mode = ssl.CERT_NONE
        self._verifying = ssl.create_default_context() if self.tls else self._trusting
        for context in (self._trusting, self._verifying):
            context.sslobject_class = _TlsObject
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the session, which belongs to the loop."""
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_established)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # a check ends by its target's timeout
            auto_decompress=False,
            headers={"User-Agent": _AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
            trace_configs=[trace],
        )

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Send the request, and compare the response."""
        check, session = target.check, self._session
        if check is None or session is None:
            raise UnableError("the probe is not at work")
        step.name = "answer"
        attempt = _Attempt()
        _attempt.set(attempt)
        host = f"[{target.address}]" if target.address.version == 6 else str(target.address)
        try:
            async with session.get(
                f"{self.name}://{host}:{target.port}{check.path}",
                headers={"Host": check.host} if check.host is not None else None,
                allow_redirects=False,
                ssl=self._verifying if self.tls and check.verify else self._trusting,
                server_hostname=_name(check.host) if self.tls and check.host is not None else None,
            ) as response:
                await self._evaluate(response, check.expect, step)
                warning = _warning(attempt.certificate, check) if self.tls else ""
                return Passed(Code.L7OK, f"status {response.status}", warning)
        except asyncio.CancelledError:
            step.timeout = attempt.timeout
            raise
        except aiohttp.ClientConnectorCertificateError as error:
            cause = error.certificate_error
            line = phrase(cause) if isinstance(cause, OSError) else str(cause)
            raise ProbeError(Code.L6RSP, line) from None
        except aiohttp.ClientOSError as error:
            cause = _cause(error)
            if cause.errno in OURS:
                raise cause from None
            code = Code.L6RSP if isinstance(cause, ssl.SSLError) else Code.L4CON
            if attempt.established:
                code = Code.L7RSP
            raise ProbeError(code, f"connect: {phrase(cause)}") from None
        except aiohttp.ServerDisconnectedError:
            raise ProbeError(Code.L7RSP, "closed the connection without an answer") from None
        except aiohttp.ClientPayloadError:
            raise ProbeError(Code.L7RSP, "closed the connection within the body") from None
        except (aiohttp.ClientError, ValueError):
            # A parser's error may repeat the server's bytes: report its meaning only.
            raise ProbeError(Code.L7RSP, "what came is no answer of HTTP") from None

    async def _evaluate(
        self, response: aiohttp.ClientResponse, expect: Expect, step: ProbeStep
    ) -> None:
        """Raises ``ProbeError`` when the answer is not as expected."""
        if not any(response.status in span for span in expect.status):
            wanted = ", ".join(map(str, expect.status))
            raise ProbeError(Code.L7STS, f"status {response.status}, expected {wanted}")
        if expect.body is None:
            return
        step.name = "body"
        body = bytearray()
        whole = _ASKS_FOR_THE_END.search(expect.body) is not None
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) >= BODY:
                break
            if not whole:
                if _found(expect.body, body):
                    return
                await asyncio.sleep(_PAUSE)
        if not _found(expect.body, body):
            line = f"status {response.status}, no {expect.body!r} in the body"
            raise ProbeError(Code.L7RSP, line)


class Https(Http):
    """As ``Http``, over TLS."""

    name = "https"
    summary = "answers a GET over TLS with the expected status and body"
    keys = frozenset({"port", "path", "host", "expect", "verify"})
    parameters = (
        Parameter(
            "expiry", 14, 0, 3650, "Days before a certificate ends that `health` warns; 0: never."
        ),
    )
    tls = True

    @classmethod
    def contradictions(cls, path: Path, check: Check) -> Iterator[Problem]:
        """A certificate is valid for a name."""
        if check.verify and check.host is None:
            what = "`verify: true` without the name that the certificate is to be valid for"
            remedy = "add `host: www.example.com`, the name that clients use"
            needs = ((*path, "host"), (*path, "type"))
            yield Problem((*path, "verify"), what, remedy, needs=needs)


def _warning(der: bytes | None, check: Check) -> str:
    days = check.parameter("expiry")
    return certificate.warning(der, days, datetime.now(UTC)) if days else ""


def _found(pattern: str, body: bytearray) -> bool:
    return re.search(pattern, body[:BODY].decode("utf-8", "replace")) is not None


def _name(host: str) -> str:
    """The name of a Host, its port left out."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _cause(error: aiohttp.ClientOSError) -> OSError:
    """The network error in an exception of aiohttp."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    return error

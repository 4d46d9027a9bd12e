"""http, https: whoever answers a GET as expected passes.

Lives here: ``Http``.
Rules: a new connection a look, as a client's first one would be; no redirect is followed, no
proxy of the environment used, nothing stored. Of a body BODY bytes are read at most, and none
where nothing is expected of it; what is expected may have come long before its end. The
certificates that the host trusts are read when the probe is made, before the process is locked in.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401 - loaded at the first name of a host else, locked in by then
import re
import ssl
from typing import Final

import aiohttp

from paraglider.config.health import Expect
from paraglider.health.probes.base import OURS, ProbeError, Step, UnableError, phrase
from paraglider.health.targets import Target

#: bytes of a body that are looked at
BODY: Final = 64 << 10
_AGENT: Final = "paraglider"
#: seconds between two searches of a body that comes in small pieces
_PAUSE: Final = 0.01
#: what a part of a body may match though the whole does not: an end, a word's end, what follows
_ASKS_FOR_THE_END: Final = re.compile(r"\$|\\[ZbB]|\(\?[=!]")


class Http:
    """The probe; ``start`` puts it onto the running loop, ``close`` gives its connections back."""

    def __init__(self) -> None:
        self._trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._trusting.check_hostname = False
        self._trusting.verify_mode = ssl.CERT_NONE
        self._verifying = ssl.create_default_context()
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the session, which belongs to the loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # a look ends by its target's patience
            auto_decompress=False,
            headers={"User-Agent": _AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()

    async def __call__(self, target: Target, step: Step) -> str:
        """Ask the target, and compare."""
        check, session = target.check, self._session
        if check is None or session is None:
            raise UnableError("the probe is not at work")
        step.name = "answer"
        host = f"[{target.address}]" if target.address.version == 6 else str(target.address)
        tls = check.type == "https"
        try:
            async with session.get(
                f"{check.type}://{host}:{target.port}{check.path}",
                headers={"Host": check.host} if check.host is not None else None,
                allow_redirects=False,
                ssl=self._verifying if tls and check.verify else self._trusting,
                server_hostname=_name(check.host) if tls and check.host is not None else None,
            ) as response:
                await self._judge(response, check.expect, step)
                return f"status {response.status}"
        except aiohttp.ClientConnectorCertificateError as error:
            cause = error.certificate_error
            raise ProbeError(phrase(cause) if isinstance(cause, OSError) else str(cause)) from None
        except aiohttp.ClientOSError as error:
            cause = _cause(error)
            if cause.errno in OURS:
                raise cause from None
            raise ProbeError(f"connect: {phrase(cause)}") from None
        except aiohttp.ServerDisconnectedError:
            raise ProbeError("closed the connection without an answer") from None
        except aiohttp.ClientPayloadError:
            raise ProbeError("closed the connection within the body") from None
        except (aiohttp.ClientError, ValueError):
            # The words of a parser repeat what it was given: say no more than what it means.
            raise ProbeError("what came is no answer of HTTP") from None

    async def _judge(self, response: aiohttp.ClientResponse, expect: Expect, step: Step) -> None:
        """Raises ``ProbeError`` when the answer is not as expected."""
        if not any(response.status in span for span in expect.status):
            wanted = ", ".join(map(str, expect.status))
            raise ProbeError(f"status {response.status}, expected {wanted}")
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
            raise ProbeError(f"status {response.status}, no {expect.body!r} in the body")


def _found(pattern: str, body: bytearray) -> bool:
    return re.search(pattern, body[:BODY].decode("utf-8", "replace")) is not None


def _name(host: str) -> str:
    """The name of a Host, its port left out."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _cause(error: aiohttp.ClientOSError) -> OSError:
    """What the network said, where aiohttp says it in its own words."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    return error

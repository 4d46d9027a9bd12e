"""postgresql: a backend passes if it begins a session, as HAProxy's `pgsql-check`.

Lives here: ``Postgresql``.
Rules: no session is established. With a `user` the startup message is sent, and the server's
request for authentication passes, whatever kind it is; without one an SSLRequest is sent, whose
answer S or N passes. Messages are those of PostgreSQL's manual, "Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check
from paraglider.core.parameter import Parameter
from paraglider.health.codes import Code
from paraglider.health.probes.base import Passed, Probe, ProbeError, ProbeStep, UnableError
from paraglider.health.probes.exchange import Stream, opened, quoted
from paraglider.health.targets import Target

_VERSION: Final = 3 << 16
_SSL_REQUEST: Final = struct.pack(">II", 8, 80877103)
#: AuthenticationOk, and the requests of the manual
_METHODS: Final = {
    0: "no password",
    2: "Kerberos",
    3: "password",
    5: "MD5 password",
    7: "GSSAPI",
    9: "SSPI",
    10: "SASL",
}
#: the longest error that is read, in bytes
_LONGEST: Final = 4096


class Postgresql(Probe):
    """Sends the startup message of `user`, or an SSLRequest."""

    name = "postgresql"
    summary = "asks a `user` to authenticate, or without one answers a request for TLS"
    keys = frozenset({"port"})
    parameters = (
        Parameter("user", "", 0, 63, "User of the startup message; without it TLS is requested."),
        Parameter("database", "", 0, 63, "Database of it; default: the name of the user."),
    )
    needs_port = True

    @classmethod
    def contradictions(cls, path: Path, check: Check) -> Iterator[Problem]:
        """A database is of a user's session."""
        given = check.parameters
        if given.get("database") and not given.get("user"):
            place = (*path, "parameters")
            what, remedy = "`database` without `user`", "add `user`, or leave it out"
            needs = ((*place, "user"),)
            yield Problem((*place, "database"), what, remedy, at="key", needs=needs)

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Connect, begin, read one answer."""
        check = target.check
        if check is None:
            raise UnableError("there is no check")
        user, database = check.parameter("user"), check.parameter("database")
        async with opened(target, step) as stream:
            if user:
                await stream.send(_startup(user, database))
                return await _authentication(stream)
            await stream.send(_SSL_REQUEST)
            return await _offer(stream)


def _startup(user: str, database: str) -> bytes:
    """A StartupMessage."""
    given = {"user": user, "database": database, "application_name": "paraglider"}
    fields = [f"{name}\0{value}\0".encode() for name, value in given.items() if value]
    body = struct.pack(">I", _VERSION) + b"".join(fields) + b"\0"
    return struct.pack(">I", len(body) + 4) + body


async def _offer(stream: Stream) -> Passed:
    """The answer to an SSLRequest, one byte or an error."""
    kind = await stream.exactly(1)
    if kind == b"S":
        return Passed(Code.L7OK, "accepts TLS")
    if kind == b"N":
        return Passed(Code.L7OK, "accepts connections, without TLS")
    raise await _failure(kind, stream)


async def _authentication(stream: Stream) -> Passed:
    """The answer to a StartupMessage."""
    kind = await stream.exactly(1)
    if kind != b"R":
        raise await _failure(kind, stream)
    size, method = struct.unpack(">II", await stream.exactly(8))
    if size < 8 or method not in _METHODS:
        raise ProbeError(Code.L7RSP, f"the request for authentication is invalid: {method}")
    return Passed(Code.L7OK, f"authentication: {_METHODS[method]}")


async def _failure(kind: bytes, stream: Stream) -> ProbeError:
    """What an answer means that is not the one wanted: an ErrorResponse has a code and a line."""
    if kind != b"E":
        return ProbeError(Code.L7RSP, f"{quoted(kind + stream.received)} is no PostgreSQL")
    size = int.from_bytes(await stream.exactly(4), "big") - 4
    if not 0 <= size <= _LONGEST:
        return ProbeError(Code.L7RSP, f"an error of {size} bytes")
    fields: dict[bytes, str] = {}
    for field in (await stream.exactly(size)).split(b"\0"):
        fields.setdefault(field[:1], field[1:].decode("utf-8", "replace"))
    return ProbeError(Code.L7STS, f"{fields.get(b'C', '')} {fields.get(b'M', 'error')}".strip())

"""redis: a backend passes if it answers PING with PONG, as HAProxy's `redis-check`.

Lives here: ``Redis``.
Rules: with a password AUTH comes first. An error of the server is a status (L7STS), for example
NOAUTH, LOADING or MASTERDOWN. The password is in no line.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check
from paraglider.core.parameter import Parameter
from paraglider.health.codes import Code
from paraglider.health.probes.base import Passed, Probe, ProbeError, ProbeStep, UnableError
from paraglider.health.probes.exchange import Stream, opened, quoted
from paraglider.health.targets import Target


class Redis(Probe):
    """Sends AUTH and PING (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""

    name = "redis"
    summary = "answers PING with PONG, after AUTH if there is a password"
    keys = frozenset({"port"})
    parameters = (
        Parameter("username", "", 0, 200, "User of AUTH; default: the user `default`."),
        Parameter("password", "", 0, 500, "Password of AUTH; without it AUTH is not sent."),
    )
    needs_port = True

    @classmethod
    def contradictions(cls, path: Path, check: Check) -> Iterator[Problem]:
        """A user has a password."""
        given = check.parameters
        if given.get("username") and not given.get("password"):
            place = (*path, "parameters")
            needs = ((*place, "password"),)
            what, remedy = "`username` without `password`", "add `password`, or leave it out"
            yield Problem((*place, "username"), what, remedy, at="key", needs=needs)

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Connect, authenticate, ping."""
        check = target.check
        if check is None:
            raise UnableError("there is no check")
        username, password = check.parameter("username"), check.parameter("password")
        async with opened(target, step) as stream:
            if password:
                step.name = "AUTH"
                user = (username,) if username else ()
                await _command(stream, "OK", "AUTH", *user, password)
            step.name = "PING"
            await _command(stream, "PONG", "PING")
        return Passed(Code.L7OK, "PONG")


async def _command(stream: Stream, wanted: str, *words: str) -> None:
    """Send a command; raises ``ProbeError`` unless its answer is the simple string ``wanted``."""
    encoded = [word.encode() for word in words]
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
    await stream.send(b"*%d\r\n%s" % (len(parts), b"".join(parts)))
    line = await stream.line()
    if line == b"+" + wanted.encode():
        return
    if line.startswith(b"-"):
        raise ProbeError(Code.L7STS, f"{words[0]}: {line[1:].decode('utf-8', 'replace')}")
    raise ProbeError(Code.L7RSP, f"{words[0]}: {quoted(line)} is not {wanted}")

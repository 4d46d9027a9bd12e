"""Sockets of probes that send and read themselves, and the steps of `tcp` and `udp`.

Lives here: ``connect``, ``connected``, ``opened``, ``Stream`` (a TCP connection), ``quoted``,
``matched``, and ``last_expects``, the check of `steps`.
Rules: a backend can make a probe neither wait longer than its timeout, nor keep more than the
stream's limit of bytes, nor fail in another way than by ``ProbeError``. No thread, no name, no
file.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Final

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check
from paraglider.config.payload import bytes_pattern
from paraglider.config.types import IPAddress
from paraglider.health.codes import Code
from paraglider.health.probes.base import OURS, ProbeError, ProbeStep, phrase
from paraglider.health.targets import Target

#: most bytes of an answer that are kept, as many as HAProxy's buffer has (tune.bufsize)
LIMIT: Final = 16 << 10
#: bytes of one read
_AT_ONCE: Final = 4096
#: bytes of an answer that a line shows
_QUOTED: Final = 60


async def connect(
    address: IPAddress, port: int, kind: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    """A socket of ``kind`` that is connected to ``address``; raises OSError."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


async def connected(address: IPAddress, port: int) -> None:
    """Return as soon as ``address`` accepts a connection; raises OSError when it does not."""
    (await connect(address, port)).close()


@contextlib.asynccontextmanager
async def opened(target: Target, step: ProbeStep, limit: int = LIMIT) -> AsyncIterator[Stream]:
    """A connection to ``target``, closed in the end; the step is then `answer`."""
    with await connect(target.address, target.port) as sock:
        step.name, step.timeout = "answer", Code.L7TOUT
        yield Stream(sock, limit)


class Stream:
    """The bytes of one connection; ``received`` are those that no method has returned yet."""

    def __init__(self, sock: socket.socket, limit: int = LIMIT) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._limit = limit
        self.received = bytearray()

    async def send(self, data: bytes) -> None:
        """Send ``data``."""
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError as error:
            raise _broken(error) from None

    async def more(self) -> None:
        """Wait for further bytes; raises ``ProbeError`` if there are none, or too many."""
        if len(self.received) >= self._limit:
            line = f"more than {self._limit} bytes came: {quoted(self.received)}"
            raise ProbeError(Code.L7RSP, line)
        try:
            data = await self._loop.sock_recv(self._sock, _AT_ONCE)
        except OSError as error:
            raise _broken(error) from None
        if not data:
            came = f" after {quoted(self.received)}" if self.received else " without an answer"
            raise ProbeError(Code.L7RSP, f"closed the connection{came}")
        self.received += data

    async def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        while len(self.received) < size:
            await self.more()
        return self._take(size)

    async def line(self) -> bytes:
        """The next line, without CR and LF."""
        while (end := self.received.find(b"\n")) < 0:
            await self.more()
        return self._take(end + 1).rstrip(b"\r\n")

    async def last_line(self) -> bytes:
        """The next line, which the end of the connection ends too, if something came."""
        try:
            return await self.line()
        except ProbeError:
            if not self.received or len(self.received) >= self._limit:
                raise
        return self._take(len(self.received))

    def _take(self, size: int) -> bytes:
        taken = bytes(self.received[:size])
        del self.received[:size]
        return taken


def quoted(data: bytes | bytearray) -> str:
    """The beginning of ``data`` in quotes, with escapes."""
    text = repr(bytes(data[:_QUOTED]))[1:]
    return text if len(data) <= _QUOTED else f"{text}..."


def matched(expect: str, data: bytes | bytearray) -> bool:
    """Whether the expression ``expect`` matches somewhere in ``data``."""
    return bytes_pattern(expect).search(data) is not None


def last_expects(path: Path, check: Check) -> Iterator[Problem]:
    """The problem of `steps` (of ``check``, at ``path``) whose last one expects nothing."""
    if check.steps and check.steps[-1].expect is None:
        what = "the last step has no `expect`, so its answer would not be read"
        remedy = "add `expect: .`, or the regular expression of the answer"
        needs = ((*path, "type"),)
        yield Problem((*path, "steps", len(check.steps) - 1), what, remedy, needs=needs)


def _broken(error: OSError) -> Exception:
    """What an error of an established connection means."""
    return error if error.errno in OURS else ProbeError(Code.L7RSP, f"answer: {phrase(error)}")

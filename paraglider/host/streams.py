"""The standard streams of a process.

Lives here: ``prepare``, which every command calls first, and ``finish``, which it calls last;
``Outlet`` and ``outlet_of``, with which the daemon writes to a stream; ``FALLBACK``, for text that
a stream cannot encode.
Rules: ``prepare`` opens the descriptors 0, 1 and 2 if they are closed, so that no socket or file
gets one of these numbers. Writing never raises: a command must not stop half-way because its output
has no reader; ``finish`` returns the error. An ``Outlet`` never blocks: output that cannot be
written at once is dropped and counted.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import socket
import stat
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TextIO

#: name of the codecs error handler: ASCII for characters that an encoding lacks, else "?"
FALLBACK: Final = "paraglider.fallback"
_ASCII: Final = {"→": "->", "…": "...", "·": "-", "×": "x", "–": "-", "—": "-", "✓": "+", "✗": "x"}
#: surrogates of undecodable bytes in a file's name, from ``os.fsdecode`` (PEP 383)
_RAW: Final = range(0xDC80, 0xDD00)

#: writes some of the bytes, returns how many; raises OSError, BlockingIOError if it would block
Send = Callable[[bytes], int]


class _Writable(io.RawIOBase):
    """The descriptor ``number`` for writing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """See the class."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)


class _Output(_Writable):
    """The descriptor ``number`` for writing; ``failed`` is the first error, after which all output
    is discarded.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.failed: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write some of ``data``; returns how many bytes."""
        if self.failed is None:
            try:
                return os.write(self._number, data)
            except OSError as error:
                self.failed = error
        return len(data)


def prepare() -> None:
    """Open the closed ones of the descriptors 0, 1 and 2 as /dev/null, and make standard output and
    standard error accept any text without raising.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number free
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # otherwise a test reads it
        sys.stdout = _text(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(2, sys.stderr)


def _text(number: int, before: TextIO | None) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(number)),
        "utf-8" if before is None else before.encoding,
        FALLBACK,
        line_buffering=number == 2 or os.isatty(number),
    )


def finish() -> OSError | None:
    """Flush the streams; returns the first error of standard output, else of standard error."""
    found = None
    for stream in (sys.stderr, sys.stdout):
        stream.flush()
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, _Output) and raw.failed is not None:
            found = raw.failed
    return found


def _fall_back(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter, after = error.object[error.start], error.start + 1
    if ord(letter) in _RAW:
        return bytes([ord(letter) - _RAW.start + 0x80]), after
    return _ASCII.get(letter, "?"), after


codecs.register_error(FALLBACK, _fall_back)


class Outlet(_Writable):
    """A stream of lines to ``send``; ``lost`` counts the dropped ones.

    ``number`` is its descriptor. A line that was written partially is completed before any other.
    """

    def __init__(self, send: Send, number: int = -1) -> None:
        super().__init__(number)
        self.lost = 0
        self._send = send
        self._rest = b""
        self._pid = os.getpid()

    def write(self, data: Any, /) -> int:
        """Write ``data``, or drop it; returns its length in either case."""
        self.put(bytes(data))
        return len(data)

    def put(self, data: bytes) -> bool:
        """Write ``data``, complete lines; False if it was dropped."""
        if self._pid != os.getpid():  # a fork: the rest and the count belong to the parent
            self._pid, self._rest, self.lost = os.getpid(), b"", 0
        if self._rest:
            self._rest = self._written(self._rest)
        left = data if self._rest else self._written(data)
        if not left:
            return True
        if len(left) < len(data):
            self._rest = left
            return True
        self.lost += max(data.count(b"\n"), 1)
        return False

    def _written(self, data: bytes) -> bytes:
        """Write ``data``; returns the part for which there was no room."""
        with contextlib.suppress(OSError):
            while data:
                data = data[self._send(data) :]
        return data


def outlet_of(number: int) -> Outlet:
    """An outlet to the file of the descriptor ``number``.

    A pipe or terminal is opened again (proc_pid_fd(5)), because O_NONBLOCK on the given descriptor
    would apply to all programs that share it. Must be called before privileges are dropped.
    """
    kind = os.fstat(number).st_mode
    if stat.S_ISREG(kind):
        return Outlet(partial(os.write, number), number)
    if stat.S_ISSOCK(kind):
        end = socket.socket(fileno=os.dup(number))
        return Outlet(lambda data: end.send(data, socket.MSG_DONTWAIT), number)
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return Outlet(partial(os.write, os.open(f"/proc/self/fd/{number}", flags)), number)
    except OSError:  # no /proc, or another user's pipe
        return Outlet(partial(_write_where_room, number), number)


def _write_where_room(number: int, data: bytes) -> int:
    """Write at most PIPE_BUF bytes, which a writable pipe takes without blocking (pipe(7))."""
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(number, data[: select.PIPE_BUF])

"""The connection to the daemon: `GET /v1/announce` at its control socket.

A daemon that is gone is noticed at once: no process listens at its socket then. A connection that
ends while one does is made again, since the http process alone may have been replaced. A daemon
that tells nothing for SILENT seconds hangs, and is as good as gone.

Lives here: ``StateStream``; ``StreamAnswer``, which reads what ``daemon.http.announce`` answers.
Rules: never waits. Whatever the answer is, no exception but those of the callbacks.
"""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol

from paraglider.daemon.processes.loop import Loop

#: seconds without a word after which a daemon hangs; it tells something twice a second
SILENT: Final = 4.0
#: seconds between two attempts to connect
PAUSE: Final = 0.1
#: bytes of one line, and of the head of an answer
_LONGEST: Final = 8 << 20
_AT_ONCE: Final = 1 << 18
_REQUEST: Final = b"GET /v1/announce HTTP/1.0\r\nHost: paraglider\r\n\r\n"
_OK: Final = 200
_BUSY: Final = 503


class Listener(Protocol):
    """Gets what the daemon tells."""

    def told(self, line: dict[str, Any]) -> None:
        """A line; the first of a connection is of all VIPs."""

    def gone(self, why: str) -> None:
        """The daemon is gone, or hangs; may be called again with another reason."""


class StreamAnswer:
    """An HTTP answer that is read as it comes: ``status`` is 0 until its head is complete,
    ``told``: there was a line.
    """

    def __init__(self) -> None:
        self.status = 0
        self.told = False
        self._data = b""

    def lines(self, data: bytes) -> list[dict[str, Any]]:
        """The complete lines, after ``data``; raises ValueError if it is no such answer."""
        self._data += data
        if not self.status:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return self._bounded([])
            self.status, self._data = int(head.split(b" ", 2)[1]), rest
        if self.status != _OK:
            return self._bounded([])
        *complete, self._data = self._data.split(b"\n")
        found = [json.loads(line) for line in complete]
        if not all(isinstance(line, dict) for line in found):
            raise ValueError("a line is no object")
        self.told = self.told or bool(found)
        return self._bounded(found)

    @property
    def error(self) -> str:
        """What the daemon says is wrong, as far as it was read."""
        try:
            return str(json.loads(self._data)["error"])
        except (ValueError, TypeError, KeyError):
            return f"it answers with status {self.status}"

    def _bounded(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(self._data) > _LONGEST:
            raise ValueError("the answer is too long")
        return found


class StateStream:
    """The connection to the socket ``path``; ``clock`` is monotonic seconds."""

    def __init__(
        self, path: str, listener: Listener, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._listener = listener
        self._clock = clock
        self._loop: Loop | None = None
        self._end: socket.socket | None = None
        self._answer = StreamAnswer()
        self._heard = clock()  # when the daemon told something, or was found to be gone
        self._again = -inf

    def attach(self, loop: Loop) -> None:
        """Read on ``loop``."""
        self._loop = loop

    def poll(self, now: float) -> float:
        """Connect, and see whether the daemon hangs; returns the seconds until the next time."""
        if now >= self._heard + SILENT:
            self._heard = now
            self._listener.gone(f"no sign of life for {SILENT:g} s")
            self._drop(0.0)
        if self._end is None and now >= self._again:
            self._connect()
        due = self._heard + SILENT
        return max(0.0, (min(due, self._again) if self._end is None else due) - now)

    def close(self) -> None:
        """Close the connection."""
        self._drop(inf)

    def _connect(self) -> None:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.setblocking(False)
        try:
            end.connect(self._path)
            end.send(_REQUEST)
        except BlockingIOError:  # its backlog is full: it is there, and late
            end.close()
            self._again = self._clock() + PAUSE
            return
        except OSError as error:
            end.close()
            self._lost(_reason(error, self._path))
            return
        self._end, self._answer = end, StreamAnswer()
        if self._loop is not None:
            self._loop.watch(end, self.read)

    def read(self) -> None:
        """Read what has come."""
        if self._end is None:
            return
        try:
            data = self._end.recv(_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        try:
            lines = self._answer.lines(data)
        except (ValueError, IndexError, RecursionError):
            self._lost(f"what answers at {self._path} is no paraglider of this version")
            return
        for line in lines:
            self._heard = self._clock()
            self._listener.told(line)

    def _ended(self) -> None:
        """The other end has closed the connection."""
        status = self._answer.status
        if status in (_OK, 0):
            self._drop(PAUSE)
            if self._answer.told:  # at once: if nobody listens any more, the daemon is gone
                self._connect()
        elif status == _BUSY:
            self._drop(PAUSE)
        else:
            self._lost(f"{self._path}: {self._answer.error}")

    def _lost(self, why: str) -> None:
        """The daemon is gone."""
        self._drop(PAUSE)
        self._heard = self._clock()
        self._listener.gone(why)

    def _drop(self, pause: float) -> None:
        self._again = self._clock() + pause
        if self._end is not None:
            if self._loop is not None:
                self._loop.forget(self._end)
            self._end.close()
            self._end = None


def _reason(error: OSError, path: str) -> str:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return f"no paraglider answers at {path}"
    if error.errno == errno.EACCES:
        return f"the control socket {path} is not for this user: see `control.announcer`"
    return f"the control socket {path} failed: {error.strerror or error}"

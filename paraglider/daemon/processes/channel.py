"""A channel: messages between the hub and one of its processes, over a socket pair.

A message is a JSON object, four bytes of length ahead of it. Never pickle: a worker has fewer
rights than the hub, and what it sends must not become code. Neither end ever waits for the other:
what does not fit the socket's buffer is kept until it does.

Rules: both directions are bounded, LONGEST bytes a message (HEARD what the hub hears) and BACKLOG
bytes that wait to be sent. Of JSON there is what other languages have too: no NaN, no Infinity, no
number beyond 64 bits, no half of a surrogate pair, nothing nested deeper than DEEPEST. Anything
that is no message, and an end that no longer reads, is a ``ChannelError``; the channel is then
worth nothing, and its owner closes it.
"""

from __future__ import annotations

import json
import math
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from paraglider.errors import PlatformError

Message = dict[str, Any]

#: bytes of one message: a configuration of the largest size that is read at all, and room
LONGEST: Final = 32 << 20
#: the same of what the hub hears: a list of the flows that one process lists at most, and room
HEARD: Final = 4 << 20
#: how deep a message may be nested
DEEPEST: Final = 32
#: bytes that may wait for the other end to read
BACKLOG: Final = 64 << 20
#: bytes that one call of ``receive`` reads at most, so that a busy end holds nobody up
_AT_ONCE: Final = 1 << 18
_HEAD: Final = struct.Struct("!I")


class ChannelError(PlatformError):
    """The other end is gone, does not read, or sends what is no message."""


class ChannelClosedError(ChannelError):
    """The other end is gone."""


class Channel:
    """One end; ``pair`` makes two."""

    def __init__(self, end: socket.socket, longest: int = LONGEST, backlog: int = BACKLOG) -> None:
        end.setblocking(False)
        self._socket = end
        self._longest = longest
        self._backlog = backlog
        self._in = bytearray()
        self._out = bytearray()

    @classmethod
    def pair(cls, heard: int = LONGEST) -> tuple[Channel, Channel]:
        """Two ends that are joined; the first hears messages of ``heard`` bytes at most."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(one, heard), cls(other)

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    @property
    def waiting(self) -> bool:
        """Whether something waits for room: watch the descriptor for writing, then ``flush``."""
        return bool(self._out)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send ``message``, now or as soon as there is room; raises ``ChannelError``."""
        body = json.dumps(message, separators=(",", ":")).encode()
        if len(body) > self._longest:
            raise ChannelError(f"a message of {len(body)} bytes is too long")
        if len(self._out) + len(body) > self._backlog:
            raise ChannelError("the other end of a channel does not read")
        self._out += _HEAD.pack(len(body)) + body
        self.flush()

    def flush(self) -> None:
        """Send of what waits as much as there is room for; raises ``ChannelError``."""
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                return
            except OSError as error:
                raise ChannelClosedError(f"the other end of a channel is gone: {error}") from error
            del self._out[:sent]

    def receive(self) -> list[Message]:
        """The whole messages that are there; raises ``ChannelError``.

        What came before the other end's end is returned first.
        """
        read = 0
        ended = False
        while read < _AT_ONCE and not ended:
            try:
                data = self._socket.recv(_AT_ONCE)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            ended = not data
            read += len(data)
            self._in += data
        messages = self._messages()
        if ended and not messages:
            raise ChannelClosedError("the other end of a channel is gone")
        return messages

    def close(self) -> None:
        """Close this end; again and again does no harm."""
        self._socket.close()

    def _messages(self) -> list[Message]:
        found: list[Message] = []
        start = 0
        while len(self._in) - start >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._in, start)
            if length > self._longest:
                raise ChannelError(f"a message of {length} bytes is announced, which is too long")
            end = start + _HEAD.size + length
            if len(self._in) < end:
                break
            found.append(_decoded(bytes(self._in[start + _HEAD.size : end])))
            start = end
        del self._in[:start]
        return found


def _decoded(body: bytes) -> Message:
    try:
        message = _DECODER.decode(body.decode())
        if b"\\ud" in body.lower():  # a half of a pair can be written in no other way
            json.dumps(message, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"what came is no JSON: {str(error)[:100]}") from None
    if not isinstance(message, dict):
        raise ChannelError("what came is no JSON object")
    if not _is_flat(message):
        raise ChannelError("what came is nested too deep")
    return message


def _is_flat(message: Message) -> bool:
    """Whether ``message`` is nested no deeper than DEEPEST."""
    level: list[Any] = [message]
    for _ in range(DEEPEST):
        inner = [i for one in level for i in (one.values() if isinstance(one, dict) else one)]
        level = [value for value in inner if isinstance(value, dict | list)]
        if not level:
            return True
    return False


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) <= _DIGITS else _MOST + 1
    if not _LEAST <= number <= _MOST:
        raise ValueError("a number is too large")
    return number


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


# What 64 bits hold with a sign or without: a seed is a number of the second kind.
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 64) - 1
_DIGITS: Final = 20  # with a sign
_DECODER: Final = json.JSONDecoder(parse_int=_whole, parse_float=_real, parse_constant=_constant)

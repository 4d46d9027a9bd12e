"""Messages between the supervisor and its processes, over socket pairs.

On the wire a frame is a header (the length of the body, the kind of the frame, a number) and a
body, the JSON of one message of ``messages``. Never pickle: a worker has fewer privileges than the
supervisor, and its messages must not become code. Neither end waits for the other: what does not
fit into the socket's buffer is kept until there is room; ``pending`` is true meanwhile.

Lives here: ``IpcEndpoint``, one end; ``LoopEndpoint``, the same on a running asyncio loop, with
requests; ``Broadcasts``, requests to several processes with a deadline.
Rules: both directions are bounded: LONGEST bytes per message (RECEIVED for the supervisor) and
BACKLOG unsent bytes. An end accepts only the messages of its side. Anything else, and a peer that
does not read, is an ``EndpointError``; after it the owner closes the endpoint.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from pydantic import ValidationError

from paraglider.daemon.messages import Message, Receives
from paraglider.errors import PlatformError

#: bytes of one message: the largest configuration that is accepted, and room
LONGEST: Final = 32 << 20
#: the same for messages to the supervisor: the longest list of flows of one process, and room
RECEIVED: Final = 4 << 20
#: most unsent bytes
BACKLOG: Final = 64 << 20
#: most open requests
MOST_REQUESTS: Final = 64
#: bytes that one call of ``receive`` reads at most, so that a busy peer delays no other
_AT_ONCE: Final = 1 << 18
_HEADER: Final = struct.Struct("!IBI")


class EndpointError(PlatformError):
    """The peer has closed its end, does not read, or sent an invalid message."""


class EndpointClosedError(EndpointError):
    """The peer has closed its end."""


class InvalidMessageError(EndpointError):
    """The peer sent bytes that are not a message of its side."""


class Kind(IntEnum):
    """The kind of a frame: a message, a request with its number, or the answer to that number."""

    MESSAGE = 0
    REQUEST = 1
    ANSWER = 2


class Frame(NamedTuple):
    """A received message; ``number`` is 0 if it is neither request nor answer."""

    message: Message
    kind: Kind = Kind.MESSAGE
    number: int = 0


def encode(message: Message) -> bytes:
    """The encoded body of ``message``, for sending it to several peers."""
    return message.model_dump_json(by_alias=True).encode()


class IpcEndpoint:
    """One end of a socket pair; ``receives`` validates incoming messages. ``pair`` makes two."""

    def __init__(
        self,
        end: socket.socket,
        receives: Receives,
        *,
        longest: int = LONGEST,
        backlog: int = BACKLOG,
    ) -> None:
        end.setblocking(False)
        self._socket = end
        self._receives = receives
        self._longest = longest
        self._backlog = backlog
        self._in = bytearray()
        self._out = bytearray()

    @classmethod
    def pair(
        cls, ours: Receives, theirs: Receives, *, longest: int = LONGEST
    ) -> tuple[IpcEndpoint, IpcEndpoint]:
        """Two connected ends: the first receives ``ours``, at most ``longest`` bytes each, the
        second ``theirs``.
        """
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(one, ours, longest=longest), cls(other, theirs)

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """Whether there are unsent bytes: then watch the descriptor for writing and call
        ``flush``.
        """
        return bool(self._out)

    def send(self, message: Message | bytes, kind: Kind = Kind.MESSAGE, number: int = 0) -> None:
        """Send ``message`` (bytes: the result of ``encode``), now or when there is room.

        Raises ``EndpointError``.
        """
        body = message if isinstance(message, bytes) else encode(message)
        if len(body) > self._longest:
            raise EndpointError(f"a message of {len(body)} bytes is too long")
        if len(self._out) + len(body) > self._backlog:
            raise EndpointError("the peer does not read")
        self._out += _HEADER.pack(len(body), kind, number) + body
        self.flush()

    def flush(self) -> None:
        """Send as many pending bytes as fit; raises ``EndpointError``."""
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                return
            except OSError as error:
                raise EndpointClosedError(f"the peer is gone: {error}") from error
            del self._out[:sent]

    def receive(self) -> list[Frame]:
        """The complete messages received so far; raises ``EndpointError``.

        Messages received before the peer closed its end are returned first.
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
        frames = self._frames()
        if ended and not frames:
            raise EndpointClosedError("the peer is gone")
        return frames

    def close(self) -> None:
        """Close this end; a second call does nothing."""
        self._socket.close()

    def _frames(self) -> list[Frame]:
        found: list[Frame] = []
        start = 0
        while len(self._in) - start >= _HEADER.size:
            length, kind, number = _HEADER.unpack_from(self._in, start)
            if length > self._longest:
                raise InvalidMessageError(f"a message of {length} bytes is announced, too long")
            end = start + _HEADER.size + length
            if len(self._in) < end:
                break
            found.append(self._frame(bytes(self._in[start + _HEADER.size : end]), kind, number))
            start = end
        del self._in[:start]
        return found

    def _frame(self, body: bytes, kind: int, number: int) -> Frame:
        try:
            return Frame(self._receives.validate_json(body), Kind(kind), number)
        except ValidationError as error:
            raise InvalidMessageError(_why(error)) from None
        except ValueError:
            raise InvalidMessageError(f"there is no kind {kind} of frame") from None


def _why(error: ValidationError) -> str:
    """The place and kind of the first error, without the value, since this goes into the log."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"][:6])
    return f"{where}: {first['type']}" if where else first["type"]


class LoopEndpoint:
    """An ``IpcEndpoint`` on the running asyncio loop; ``on_message`` gets all but answers.

    ``closed`` becomes the exit code of the process: 0 when the peer has closed its end, else
    ``PlatformError.exit_code``. A message for which ``on_message`` raises ValueError is invalid.
    """

    def __init__(
        self, endpoint: IpcEndpoint, on_message: Callable[[Message], object] = lambda _: None
    ) -> None:
        self._endpoint = endpoint
        self._on_message = on_message
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[int] = self._loop.create_future()
        self.error: EndpointError | None = None
        self._loop.add_reader(endpoint.fileno(), self._receive)

    @property
    def pending(self) -> bool:
        """Whether the peer has not read all that was sent: wait, and send the newest state
        later.
        """
        return self._endpoint.pending

    def send(self, message: Message) -> None:
        """Send ``message``; sets ``closed`` if that fails."""
        self._send(message, Kind.MESSAGE, 0)

    async def request(self, message: Message, seconds: float) -> Message:
        """Send the request ``message`` and return the answer; raises ``PlatformError`` after
        ``seconds``.
        """
        number = next(self._numbers)
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._answers[number] = answer
        try:
            self._send(message, Kind.REQUEST, number)
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise PlatformError("the supervisor does not answer", "the log says more") from None
        finally:
            self._answers.pop(number, None)

    def finish(self, status: int) -> None:
        """Set ``closed``, if it is not set yet."""
        if not self.closed.done():
            self.closed.set_result(status)

    def detach(self) -> None:
        """Stop receiving and sending."""
        self._loop.remove_reader(self._endpoint.fileno())
        self._loop.remove_writer(self._endpoint.fileno())

    def _send(self, message: Message, kind: Kind, number: int) -> None:
        if self.error is not None:
            return
        try:
            self._endpoint.send(message, kind, number)
        except EndpointError as error:
            self._fail(error)
        else:
            self._watch_for_room()

    def _flush(self) -> None:
        try:
            self._endpoint.flush()
        except EndpointError as error:
            self._fail(error)
        else:
            self._watch_for_room()

    def _watch_for_room(self) -> None:
        if self._endpoint.pending:
            self._loop.add_writer(self._endpoint.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._endpoint.fileno())

    def _receive(self) -> None:
        try:
            for frame in self._endpoint.receive():
                if frame.kind is not Kind.ANSWER:
                    self._on_message(frame.message)
                    continue
                answer = self._answers.get(frame.number)
                if answer is not None and not answer.done():
                    answer.set_result(frame.message)
        except EndpointError as error:
            self._fail(error)

    def _fail(self, error: EndpointError) -> None:
        self.error = error
        self.detach()
        # The supervisor's exit is not an error of this process.
        self.finish(0 if isinstance(error, EndpointClosedError) else error.exit_code)


#: the answers of processes, by index
Answers = dict[int, Message]
#: gets the answers of a broadcast that has ended
Done = Callable[[Answers], None]
#: sends a request with a number to the process of an index
SendRequest = Callable[[int, Message | bytes, int], None]


@dataclass(slots=True)
class _Request:
    waiting: set[int]
    deadline: float
    done: Done
    answers: Answers = field(default_factory=dict)


class Broadcasts:
    """Requests to several processes; ``send`` sends one of them.

    Never waits: a request ends when all processes have answered or exited, or at its deadline; then
    its ``done`` is called once, with the answers received. Late answers are ignored.
    """

    def __init__(self, send: SendRequest) -> None:
        self._send = send
        self._open: dict[int, _Request] = {}
        self._numbers = itertools.count(1)

    def request(self, to: Iterable[int], message: Message, deadline: float, done: Done) -> None:
        """Send ``message`` to the processes ``to``; ``deadline`` is monotonic seconds.

        Raises ``PlatformError`` if MOST_REQUESTS are open.
        """
        if len(self._open) >= MOST_REQUESTS:
            raise PlatformError("too many requests at a time", "try again in a moment")
        number = next(self._numbers) & 0xFFFF_FFFF
        indices = sorted(set(to))
        self._open[number] = _Request(set(indices), deadline, done)
        body = encode(message)
        for index in indices:
            self._send(index, body, number)
        self._settle(number)

    def on_answer(self, index: int, number: int, message: Message) -> None:
        """Called when the process ``index`` has answered the request ``number``."""
        request = self._open.get(number)
        if request is None or index not in request.waiting:
            return
        request.waiting.discard(index)
        request.answers[index] = message
        self._settle(number)

    def on_exit(self, index: int) -> None:
        """Called when the process ``index`` has exited."""
        for number, request in list(self._open.items()):
            request.waiting.discard(index)
            self._settle(number)

    def poll(self, now: float) -> float:
        """End the requests past their deadline; returns the seconds until the next deadline."""
        for number, request in list(self._open.items()):
            if request.deadline <= now:
                request.waiting.clear()
                self._settle(number)
        deadlines = [request.deadline for request in self._open.values()]
        return max(0.0, min(deadlines) - now) if deadlines else 3600.0

    def _settle(self, number: int) -> None:
        request = self._open.get(number)
        if request is not None and not request.waiting:
            del self._open[number]
            request.done(request.answers)

"""The supervisor's end of the control socket: who connects, and what each client asks for.

The http process answers the requests, and it also reads from the network (the stats page). If it is
taken over, its word that a request came in at the control socket is worth nothing. So the
supervisor accepts the connections, asks the kernel for the user at the other end (SO_PEERCRED,
unix(7)), reads the request without consuming it (MSG_PEEK), and hands the connection over with a
number. A message with that number is carried out only if it is the request that was read, and once.
Root may send any request; the user that announces VIPs may only ask what to announce.

Lives here: ``ControlConnections``.
Rules: never waits for a client; the number of connections, their bytes and their time are bounded.
"""

from __future__ import annotations

import itertools
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Protocol

from paraglider.daemon import log
from paraglider.daemon.control.handover import Handover
from paraglider.daemon.control.requests import LARGEST, BadRequestError, message_of, parse
from paraglider.daemon.messages import AnnounceRequest, ClientRequest, Message
from paraglider.errors import ParagliderError

#: connections whose request is not complete
MOST: Final = 64
#: seconds that a client has for its request, and the http process for sending it on
LIFETIME: Final = 30.0
#: requests handed over and not carried out yet
MOST_REQUESTS: Final = 1024
#: bytes that are read of a request: a body, and a long head
_READ: Final = LARGEST + (64 << 10)
#: seconds until an incomplete request is read again, doubled each time, and at most
_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 1.0
_UCRED: Final = struct.Struct("=iII")  # pid, uid, gid (unix(7))


class ConnectionLoop(Protocol):
    """What is needed of ``processes.loop.Loop``."""

    def watch(self, what: socket.socket, ready: Callable[[], object]) -> None:
        """Call ``ready`` when ``what`` is readable."""

    def forget(self, what: socket.socket) -> None:
        """Stop watching ``what``."""


@dataclass(slots=True, eq=False)
class _Arrived:
    """A connection whose request is not complete, or cannot be handed over yet. ``number`` is 0 if
    its client is refused; ``limited``: the client may only ask what to announce.
    """

    connection: socket.socket
    number: int
    until: float
    limited: bool = False
    pause: float = _PAUSE
    again: float = inf
    complete: bool = False


class ControlConnections:
    """Accepts from ``listening`` for root, ``owner`` and, only for what to announce, the user
    ``announcer``; ``clock`` is monotonic seconds.
    """

    def __init__(
        self,
        listening: socket.socket,
        owner: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        announcer: int | None = None,
    ) -> None:
        self.handover = Handover()
        self._listening = listening
        self._owner = owner
        self._announcer = announcer
        self._clock = clock
        self._loop: ConnectionLoop | None = None
        self._numbers = itertools.count(1)
        self._arrived: list[_Arrived] = []
        self._requests: dict[int, tuple[Message, float]] = {}  # and when each expires
        self._listen_again = inf
        self._log: Any = log.logger()
        listening.setblocking(False)

    def watch(self, loop: ConnectionLoop) -> None:
        """Accept on ``loop`` from now on."""
        self._loop = loop
        loop.watch(self._listening, self._accept)

    def stop(self) -> None:
        """Accept no more: a client that announces VIPs then knows that the daemon is gone."""
        if self._loop is not None:
            self._loop.forget(self._listening)
        self._listening.close()

    def poll(self, now: float) -> float:
        """Go on with connections that wait; returns the seconds until the next is due."""
        for arrived in list(self._arrived):
            if arrived.until <= now:
                self._drop(arrived)
            elif arrived.again <= now:
                self._read(arrived)
        if self._loop is not None and self._listen_again <= now:
            full = len(self._arrived) >= MOST
            self._listen_again = now + _LONGEST_PAUSE if full else inf
            if not full:
                self._loop.watch(self._listening, self._accept)
        times = [min(arrived.until, arrived.again) for arrived in self._arrived]
        return max(0.0, min([*times, self._listen_again]) - now)

    def requested(self, request: ClientRequest) -> bool:
        """Whether a client of the control socket made ``request``, and it was not sent before."""
        expected, until = self._requests.pop(request.connection, (None, 0.0))
        return expected == request and self._clock() < until

    def keep_handover(self) -> None:
        """In the http process: close all but its end of ``handover``."""
        self._close_connections()
        self.handover.keep_taking()

    def close(self) -> None:
        """Close everything; also in other processes, where it belongs to the supervisor."""
        self._close_connections()
        self.handover.close()

    def _close_connections(self) -> None:
        self._listening.close()
        for arrived in self._arrived:
            arrived.connection.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it was closed already
            return
        except OSError:  # too many files are open: the clients wait in the backlog
            self._rest()
            return
        connection.setblocking(False)
        now = self._clock()
        uid = _user_of(connection)
        trusted = uid in (0, self._owner)
        if trusted or uid == self._announcer:
            number = next(self._numbers)
            arrived = _Arrived(connection, number, now + LIFETIME, limited=not trusted)
            self._arrived.append(arrived)
            self._read(arrived)
        else:
            self._log.warning("control socket: user refused", uid=uid)
            arrived = _Arrived(connection, 0, now + LIFETIME)
            self._arrived.append(arrived)
            self._hand_over(arrived)
        if len(self._arrived) >= MOST:
            self._make_room()

    def _make_room(self) -> None:
        """Drop the connection that has sent an incomplete request for longest; if all wait for the
        http process, rest.
        """
        oldest = next((arrived for arrived in self._arrived if not arrived.complete), None)
        if oldest is None:
            self._rest()
        else:
            self._drop(oldest)

    def _rest(self) -> None:
        """Stop accepting for _LONGEST_PAUSE seconds."""
        if self._loop is not None:
            self._loop.forget(self._listening)
        self._listen_again = self._clock() + _LONGEST_PAUSE

    def _read(self, arrived: _Arrived) -> None:
        """Read the request of ``arrived``, and hand the connection over if it is complete."""
        if arrived.number == 0:
            self._hand_over(arrived)
            return
        try:
            data = arrived.connection.recv(_READ, socket.MSG_PEEK)
        except BlockingIOError:
            arrived.again = inf
            if self._loop is not None:
                self._loop.watch(arrived.connection, lambda: self._read(arrived))
            return
        except OSError:
            data = b""
        if not data:
            self._drop(arrived)
            return
        try:
            request = parse(data)
            if request is None and len(data) < _READ:
                if _has_ended(arrived.connection):
                    self._drop(arrived)
                else:
                    self._wait(arrived)
                return
            message = None if request is None else message_of(request, arrived.number)
        except (
            ValueError,
            BadRequestError,
            ParagliderError,
        ):  # the http process says what is wrong
            message = None
        if arrived.limited and not isinstance(message, AnnounceRequest):
            arrived.number, message = 0, None
        self._hand_over(arrived, message)

    def _hand_over(self, arrived: _Arrived, message: Message | None = None) -> None:
        arrived.complete = True
        try:
            if not self.handover.give(arrived.number, arrived.connection):
                self._wait(arrived)
                return
        except OSError as error:
            self._log.error("http: takes no connections, given up", error=str(error))
            self.handover.renew()
        else:
            if message is not None:
                self._expect(arrived.number, message)
        self._drop(arrived)

    def _expect(self, number: int, message: Message) -> None:
        now = self._clock()
        self._requests[number] = message, now + LIFETIME
        for old, (_, until) in list(self._requests.items()):
            if until > now and len(self._requests) <= MOST_REQUESTS:
                break
            del self._requests[old]

    def _wait(self, arrived: _Arrived) -> None:
        """Read again after a pause: what was read stays in the socket, which remains readable."""
        if self._loop is not None:
            self._loop.forget(arrived.connection)
        arrived.again = self._clock() + arrived.pause
        arrived.pause = min(2 * arrived.pause, _LONGEST_PAUSE)

    def _drop(self, arrived: _Arrived) -> None:
        """Close the connection here; the http process has it if it was handed over."""
        if self._loop is not None:
            self._loop.forget(arrived.connection)
        self._arrived.remove(arrived)
        arrived.connection.close()


def _user_of(connection: socket.socket) -> int:
    """The id of the user that has connected."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(credentials)[1]
    return uid


def _has_ended(connection: socket.socket) -> bool:
    """Whether the client sends no more: it has closed the connection, or its direction. Reading
    does not tell, as long as there are bytes that were not consumed.
    """
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))

"""Accepted connections of the control socket, on their way from the supervisor to the http process.

Each is one packet: its number, and its descriptor (SCM_RIGHTS, unix(7)). Connections wait in the
socket's buffer while the process is being replaced.

Lives here: ``Handover``, both ends, which outlive the process; ``HandedConnections``, the end of
the process.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from typing import Final

_NUMBER: Final = struct.Struct("!Q")
#: the other end has to read first; the last: too many descriptors are on their way (unix(7))
_NO_ROOM: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS})


class Handover:
    """A pair of connected sockets; no end waits for the other."""

    def __init__(self) -> None:
        self._giving, self.taking = _pair()

    def give(self, number: int, connection: socket.socket) -> bool:
        """Hand ``connection`` over, which stays open here too; False while there is no room.

        Raises OSError if the other end was shut down.
        """
        try:
            socket.send_fds(self._giving, [_NUMBER.pack(number)], [connection.fileno()])
        except OSError as error:
            if error.errno in _NO_ROOM:
                return False
            raise
        return True

    def renew(self) -> None:
        """Replace both ends; a process that starts later inherits the new one."""
        self.close()
        self._giving, self.taking = _pair()

    def keep_taking(self) -> None:
        """In the http process: close the supervisor's end."""
        self._giving.close()

    def close(self) -> None:
        """Close both ends."""
        self._giving.close()
        self.taking.close()


class HandedConnections:
    """The connections that come from ``taking``; the interface of a listening socket."""

    def __init__(self, taking: socket.socket) -> None:
        self._taking = taking
        self._numbers: dict[int, int] = {}  # by descriptor; it is not in use when it comes again

    def fileno(self) -> int:
        """For selectors."""
        return self._taking.fileno()

    def accept(self) -> tuple[socket.socket, None]:
        """The next connection; raises OSError if there is none."""
        data, descriptors, _, _ = socket.recv_fds(self._taking, _NUMBER.size, 1)
        if len(data) != _NUMBER.size or not descriptors:
            raise ConnectionAbortedError("no connection was handed over")
        connection = socket.socket(fileno=descriptors[0])
        (self._numbers[connection.fileno()],) = _NUMBER.unpack(data)
        return connection, None

    def setblocking(self, flag: bool, /) -> None:
        """Whether ``accept`` waits for a connection."""
        self._taking.setblocking(flag)

    def number(self, connection: socket.socket) -> int:
        """The number of ``connection``; 0 if its client may not use the control socket."""
        return self._numbers.get(connection.fileno(), 0)

    def number_of(self, transport: asyncio.BaseTransport | None) -> int:
        """The same by its transport; 0 if the client has disconnected."""
        found = None if transport is None else transport.get_extra_info("socket")
        return 0 if found is None else self._numbers.get(found.fileno(), 0)


def _pair() -> tuple[socket.socket, socket.socket]:
    giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (giving, taking):
        end.setblocking(False)
    return giving, taking

"""A door: the connections of an HTTP server, few at a time and none for ever.

Lives here: ``Door``, which accepts for the control socket (``api``) and the stats page (``web``).
Rules: who may come in is the owner's to say (``admit``); how many, and for how long, is said here.
A stranger, and one too many, are answered once and let go.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

#: connections at a time
MOST: Final = 64
#: seconds that a connection may last: one request, and the longest of the hub's answers
LIFETIME: Final = 30.0
_SWEEP: Final = 1.0

#: why somebody is not let in: an HTTP status and words; None where he is
Admit = Callable[[socket.socket], tuple[int, str] | None]


def everybody(_end: socket.socket) -> tuple[int, str] | None:
    """Admit whoever comes."""
    return None


class Door:
    """Accepts connections from ``listening`` for ``server``, ``most`` at a time, ``lifetime``
    seconds each, from those whom ``admit`` lets in.
    """

    def __init__(
        self,
        listening: socket.socket,
        admit: Admit,
        server: Any,
        *,
        most: int = MOST,
        lifetime: float = LIFETIME,
    ) -> None:
        self._listening = listening
        self._admit = admit
        self._server = server
        self._most = most
        self._lifetime = lifetime
        self._open: dict[asyncio.Transport, float] = {}  # until when
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)
        self._next = self._loop.call_later(_SWEEP, self._sweep)

    def keep(self, transport: asyncio.BaseTransport | None, seconds: float) -> None:
        """The connection of ``transport`` may last ``seconds`` from now on."""
        if isinstance(transport, asyncio.Transport):
            self._open[transport] = self._loop.time() + seconds

    def close(self) -> None:
        """Accept no more, and end what is open."""
        self._loop.remove_reader(self._listening.fileno())
        self._next.cancel()
        for transport in self._open:
            transport.close()

    def _accept(self) -> None:
        try:
            end, _ = self._listening.accept()
        except OSError:  # it has gone again, or there are too many files: the next may do
            return
        refusal = self._admit(end)
        if refusal is not None:
            self._refuse(end, *refusal)
        elif self._count() >= self._most:
            self._refuse(end, 503, "too many connections at a time")
        else:
            task = self._loop.create_task(self._welcome(end))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _welcome(self, end: socket.socket) -> None:
        end.setblocking(False)
        transport, _ = await self._loop.connect_accepted_socket(self._server, end)
        self._open.setdefault(transport, self._loop.time() + self._lifetime)

    def _count(self) -> int:
        """Connections that are open, or about to be."""
        self._open = {one: until for one, until in self._open.items() if not one.is_closing()}
        return len(self._open) + len(self._tasks)

    def _sweep(self) -> None:
        """End what has lasted too long: half a request, an answer that nobody reads."""
        self._next = self._loop.call_later(_SWEEP, self._sweep)
        self._count()
        for transport, until in self._open.items():
            if until <= self._loop.time():
                transport.abort()

    @staticmethod
    def _refuse(end: socket.socket, status: int, why: str) -> None:
        body = f'{{"error": "{why}"}}\n'
        head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        with end:
            end.setblocking(False)
            try:
                end.send((head + body).encode())
            except OSError:
                return

"""The connections of an HTTP server: few at a time, and none for ever.

Lives here: ``ConnectionLimiter``, which accepts for the control socket and the page,
and ``Shares``, by which clients share its places.
Rules: ``admit`` says who may connect; how many, and for how long, is said here. A client that may
not, and one too many, are answered once and closed. With ``Shares`` one too many takes the
place of the connection that has lasted longest, of the client that has most: who opens many and
says nothing on them keeps nobody else out.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

#: connections at a time
MOST: Final = 64
#: seconds that a connection may last: one request, and the longest of the supervisor's answers
LIFETIME: Final = 30.0
_SWEEP: Final = 1.0

#: why somebody is not let in: an HTTP status and words; None where he is
Admit = Callable[[socket.socket], tuple[int, str] | None]


def everybody(_end: socket.socket) -> tuple[int, str] | None:
    """Admit whoever comes."""
    return None


@dataclass(frozen=True, slots=True)
class Client:
    """Whose a connection is: an IPv4 address, or an IPv6 network of 64 bits. One that is ``near``
    comes from this host, where a monitor or a reverse proxy may speak for many.
    """

    name: str
    near: bool = False


def client_of(end: socket.socket) -> Client:
    """The client at the other end of a TCP connection."""
    try:
        address = ip_address(end.getpeername()[0].partition("%")[0])
    except (OSError, ValueError, IndexError):  # it has gone again
        return Client("")
    if isinstance(address, IPv6Address):
        return Client(address.packed[:8].hex(), address.is_loopback)
    return Client(str(address), address.is_loopback)


@dataclass(frozen=True, slots=True)
class Shares:
    """How clients share the places: ``each`` connections at a time of one that is not near, and
    ``reserve`` places that only those near may take.
    """

    each: int
    reserve: int
    client: Callable[[socket.socket], Client] = client_of


_NOBODY: Final = Client("")


class ConnectionLimiter:
    """Accepts connections from ``listening`` for ``server``, ``most`` at a time, ``lifetime``
    seconds each, from those whom ``admit`` lets in; they share the places by ``shares``, if given.
    """

    def __init__(
        self,
        listening: socket.socket,
        admit: Admit,
        server: Any,
        *,
        most: int = MOST,
        lifetime: float = LIFETIME,
        shares: Shares | None = None,
    ) -> None:
        self._listening = listening
        self._admit = admit
        self._server = server
        self._most = most
        self._lifetime = lifetime
        self._shares = shares
        self._open: dict[asyncio.Transport, float] = {}  # until when, the oldest first
        self._clients: dict[asyncio.Transport, Client] = {}
        self._kept: set[asyncio.Transport] = set()
        self._tasks: dict[asyncio.Task[None], Client] = {}  # connections that are not open yet
        self._loop = asyncio.get_running_loop()
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)
        self._next = self._loop.call_later(_SWEEP, self._sweep)

    def keep(self, transport: asyncio.BaseTransport | None, seconds: float) -> None:
        """The connection of ``transport`` may last ``seconds`` from now on, and gives way to no
        other.
        """
        if isinstance(transport, asyncio.Transport):
            self._open[transport] = self._loop.time() + seconds
            self._kept.add(transport)

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
            return
        client = _NOBODY if self._shares is None else self._shares.client(end)
        if not self._has_room(client):
            self._refuse(end, 503, "too many connections at a time")
            return
        task = self._loop.create_task(self._welcome(end, client))
        self._tasks[task] = client
        task.add_done_callback(self._tasks.pop)

    async def _welcome(self, end: socket.socket, client: Client) -> None:
        end.setblocking(False)
        transport, _ = await self._loop.connect_accepted_socket(self._server, end)
        self._open.setdefault(transport, self._loop.time() + self._lifetime)
        self._clients[transport] = client

    def _count(self) -> int:
        """Connections that are open, or about to be."""
        self._open = {one: until for one, until in self._open.items() if not one.is_closing()}
        self._clients = {one: self._clients.get(one, _NOBODY) for one in self._open}
        self._kept &= self._open.keys()
        return len(self._open) + len(self._tasks)

    def _has_room(self, client: Client) -> bool:
        """Whether ``client`` may come in; another connection may have been ended for it."""
        count, shares = self._count(), self._shares
        if shares is None:
            return count < self._most
        held = Counter((*self._clients.values(), *self._tasks.values()))
        if not client.near and held[client] >= shares.each:
            return self._ends_one_of(client)
        near = sum(number for one, number in held.items() if one.near)
        if count < self._most - (0 if client.near else max(shares.reserve - near, 0)):
            return True
        giving = {self._clients[one] for one in self._open if one not in self._kept}
        if not client.near and near <= shares.reserve:
            giving = {one for one in giving if not one.near}
        return bool(giving) and self._ends_one_of(*_that_have_most(giving, held))

    def _ends_one_of(self, *clients: Client) -> bool:
        """End the oldest connection of ``clients`` that may give way; whether there is one."""
        for transport in self._open:
            if self._clients[transport] in clients and transport not in self._kept:
                transport.abort()
                return True
        return False

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


def _that_have_most(clients: set[Client], held: Counter[Client]) -> list[Client]:
    """Those of ``clients`` that hold as many connections as none of them holds more."""
    most = max(held[one] for one in clients)
    return [one for one in clients if held[one] == most]

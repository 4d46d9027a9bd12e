"""Limits the connections of an HTTP server: their number and their duration.

Lives here: ``ConnectionLimiter``, which accepts for the control socket and the page,
and ``Shares``, by which clients share its places.
Rules: ``admit`` decides who may connect; this module limits how many connections and for how long.
A refused connection gets one response and is closed. With ``Shares``, a connection above the limit
evicts the oldest connection of the client with most connections, so a client that opens many idle
ones locks no other out.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, Protocol

#: concurrent connections
MOST: Final = 64
#: seconds that a connection may last: one request, and the supervisor's slowest answer
LIFETIME: Final = 30.0
_SWEEP: Final = 1.0

#: why a client is refused: an HTTP status and a reason; None if it is admitted
Admit = Callable[[socket.socket], tuple[int, str] | None]


class Acceptor(Protocol):
    """A source of accepted connections: a listening socket, or ``control.HandedConnections``."""

    def fileno(self) -> int:
        """For selectors."""

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; raises OSError if there is none."""

    def setblocking(self, flag: bool, /) -> None:
        """Whether ``accept`` waits for a connection."""


def everybody(_end: socket.socket) -> tuple[int, str] | None:
    """Admit every client."""
    return None


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a connection: an IPv4 address, or an IPv6 /64. A ``near`` client is on this
    host, where a monitor or a reverse proxy may connect on behalf of many.
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
    """How clients share the connections: at most ``each`` of one client that is not near, and
    ``reserve`` connections for near clients only.
    """

    each: int
    reserve: int
    client: Callable[[socket.socket], Client] = client_of


_NOBODY: Final = Client("")


class ConnectionLimiter:
    """Accepts connections from ``listening`` for ``server``: ``most`` at a time, ``lifetime``
    seconds each, from clients that ``admit`` accepts, shared by ``shares`` if given.
    """

    def __init__(
        self,
        listening: Acceptor,
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
        self._open: dict[asyncio.Transport, float] = {}  # deadlines, the oldest first
        self._clients: dict[asyncio.Transport, Client] = {}
        self._kept: set[asyncio.Transport] = set()
        self._tasks: dict[asyncio.Task[None], Client] = {}  # connections that are not open yet
        self._loop = asyncio.get_running_loop()
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)
        self._next = self._loop.call_later(_SWEEP, self._sweep)

    def keep(self, transport: asyncio.BaseTransport | None, seconds: float) -> None:
        """Let the connection of ``transport`` last ``seconds`` from now on, and never evict it."""
        if isinstance(transport, asyncio.Transport):
            self._open[transport] = self._loop.time() + seconds
            self._kept.add(transport)

    def close(self) -> None:
        """Stop accepting, and close the open connections."""
        self._loop.remove_reader(self._listening.fileno())
        self._next.cancel()
        for transport in self._open:
            transport.close()

    def _accept(self) -> None:
        try:
            end, _ = self._listening.accept()
        except OSError:  # it was closed already, or there are too many files: the next may work
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
        """The number of connections that are open or about to be."""
        self._open = {one: until for one, until in self._open.items() if not one.is_closing()}
        self._clients = {one: self._clients.get(one, _NOBODY) for one in self._open}
        self._kept &= self._open.keys()
        return len(self._open) + len(self._tasks)

    def _has_room(self, client: Client) -> bool:
        """Whether there is room for ``client``; another connection may be evicted for it."""
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
        """Evict the oldest evictable connection of ``clients``; returns whether there was one."""
        for transport in self._open:
            if self._clients[transport] in clients and transport not in self._kept:
                transport.abort()
                return True
        return False

    def _sweep(self) -> None:
        """Close connections past their deadline: incomplete requests, responses that are not
        read.
        """
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
    """Those of ``clients`` that hold the most connections."""
    most = max(held[one] for one in clients)
    return [one for one in clients if held[one] == most]

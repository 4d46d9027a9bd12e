"""``affinity: client``: the backend that a client keeps, and for how long.

A client is bound from its first flow until ``linger`` seconds after the end of its last flow. The
table is bounded: clients with flows never outnumber the flows, and at most ``bound`` clients
linger. Clients that were never ``confirmed``, because no flow of theirs was answered, are evicted
first, then the oldest, so that a flood from forged addresses cannot evict real clients.
Rules: time is an argument; the cost does not depend on the number of clients, also while it grows
(``sharded``). Clients that linger are linked by their addresses: objects that refer to each
other would stay, since workers run without the cyclic collector.
"""

from __future__ import annotations

from paraglider.core.pool import Backend
from paraglider.core.sharded import Sharded


class _Client:
    """A client's backend, the number of its flows, and whether one was answered. Without flows it
    lingers ``since`` its last one, between the clients ``before`` and ``after`` it.
    """

    __slots__ = ("after", "backend", "before", "confirmed", "flows", "since")

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.flows = 1
        self.confirmed = False
        self.since = 0.0
        self.before: bytes | None = None
        self.after: bytes | None = None


class _Lingering:
    """Some of ``clients``, in the order in which their last flows ended; ``first`` is the address
    of the oldest.
    """

    def __init__(self, clients: Sharded[_Client]) -> None:
        self._clients = clients
        self._count = 0
        self.first: bytes | None = None
        self._last: bytes | None = None

    def __len__(self) -> int:
        return self._count

    def append(self, address: bytes, client: _Client) -> None:
        """Add ``client`` as the newest."""
        client.before = self._last
        if self._last is None:
            self.first = address
        else:
            self._clients[self._last].after = address
        self._last = address
        self._count += 1

    def remove(self, client: _Client) -> None:
        """Remove ``client``, wherever it is."""
        before, after = client.before, client.after
        if before is None:
            self.first = after
        else:
            self._clients[before].after = after
        if after is None:
            self._last = before
        else:
            self._clients[after].before = before
        client.before = client.after = None
        self._count -= 1


class Affinity:
    """Client address (packed) to backend, for one service."""

    def __init__(self, linger: float, bound: int) -> None:
        self._linger = linger
        self._bound = bound
        self._clients: Sharded[_Client] = Sharded()
        self._confirmed = _Lingering(self._clients)
        self._unconfirmed = _Lingering(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def limit(self, linger: float, bound: int) -> None:
        """Set new limits."""
        self._linger = linger
        self._bound = bound

    def find(self, client: bytes, now: float) -> Backend | None:
        """The backend that ``client`` is bound to, or None."""
        found = self._clients.get(client)
        if found is None or not (found.flows or found.since + self._linger > now):
            return None
        return found.backend

    def hold(self, client: bytes, backend: Backend) -> None:
        """A flow of ``client`` to ``backend`` begins; the client is bound to the newest backend."""
        found = self._clients.get(client)
        if found is None:
            self._clients[client] = _Client(backend)
            return
        if not found.flows:
            self._lingering(found).remove(found)
        found.backend = backend
        found.flows += 1

    def confirm(self, client: bytes) -> None:
        """A flow of ``client`` was answered, so the address is not forged."""
        found = self._clients.get(client)
        if found is not None and found.flows:
            found.confirmed = True

    def release(self, client: bytes, now: float) -> None:
        """A flow of ``client`` ended; after its last flow the client lingers."""
        found = self._clients.get(client)
        if found is None or not found.flows:
            return
        found.flows -= 1
        if found.flows:
            return
        found.since = now
        self._lingering(found).append(client, found)
        if len(self._confirmed) + len(self._unconfirmed) > self._bound:
            self._remove_oldest(self._unconfirmed or self._confirmed)

    def expire(self, now: float, budget: int) -> int:
        """Remove expired lingering clients, at most ``budget``; returns how many."""
        gone = 0
        for lingering in (self._unconfirmed, self._confirmed):
            while gone < budget and lingering.first is not None:
                if self._clients[lingering.first].since + self._linger > now:
                    break
                self._remove_oldest(lingering)
                gone += 1
        return gone

    def _lingering(self, client: _Client) -> _Lingering:
        """Those among which ``client`` lingers while it has no flows."""
        return self._confirmed if client.confirmed else self._unconfirmed

    def _remove_oldest(self, lingering: _Lingering) -> None:
        address = lingering.first
        if address is not None:
            lingering.remove(self._clients[address])
            del self._clients[address]

"""``affinity: client``: the backend that a client keeps, and for how long.

A client is bound from its first flow until ``linger`` seconds after the end of its last flow. The
table is bounded: clients with flows never outnumber the flows, and at most ``bound`` clients
linger. Clients that were never ``confirmed``, because no flow of theirs was answered, are evicted
first, then the oldest, so that a flood from forged addresses cannot evict real clients.
Rules: time is an argument; the cost does not depend on the number of clients.
"""

from __future__ import annotations

from collections import OrderedDict

from paraglider.core.pool import Backend

_Lingering = OrderedDict[bytes, tuple[Backend, float]]


class Affinity:
    """Client address (packed) to backend, for one service."""

    def __init__(self, linger: float, bound: int) -> None:
        self._linger = linger
        self._bound = bound
        self._held: dict[bytes, tuple[Backend, int, bool]] = {}
        self._confirmed: _Lingering = OrderedDict()
        self._unconfirmed: _Lingering = OrderedDict()

    def __len__(self) -> int:
        return len(self._held) + len(self._confirmed) + len(self._unconfirmed)

    def limit(self, linger: float, bound: int) -> None:
        """Set new limits."""
        self._linger = linger
        self._bound = bound

    def find(self, client: bytes, now: float) -> Backend | None:
        """The backend that ``client`` is bound to, or None."""
        held = self._held.get(client)
        if held is not None:
            return held[0]
        lingering = self._confirmed.get(client) or self._unconfirmed.get(client)
        if lingering is None or lingering[1] + self._linger <= now:
            return None
        return lingering[0]

    def hold(self, client: bytes, backend: Backend) -> None:
        """A flow of ``client`` to ``backend`` begins; the client is bound to the newest backend."""
        held = self._held.get(client)
        if held is not None:
            self._held[client] = (backend, held[1] + 1, held[2])
            return
        confirmed = self._confirmed.pop(client, None) is not None
        if not confirmed:
            self._unconfirmed.pop(client, None)
        self._held[client] = (backend, 1, confirmed)

    def confirm(self, client: bytes) -> None:
        """A flow of ``client`` was answered, so the address is not forged."""
        held = self._held.get(client)
        if held is not None and not held[2]:
            self._held[client] = (held[0], held[1], True)

    def release(self, client: bytes, now: float) -> None:
        """A flow of ``client`` ended; after its last flow the client lingers."""
        held = self._held.get(client)
        if held is None:
            return
        backend, flows, confirmed = held
        if flows > 1:
            self._held[client] = (backend, flows - 1, confirmed)
            return
        del self._held[client]
        lingering = self._confirmed if confirmed else self._unconfirmed
        lingering[client] = (backend, now)
        if len(self._confirmed) + len(self._unconfirmed) > self._bound:
            (self._unconfirmed or self._confirmed).popitem(last=False)

    def expire(self, now: float, budget: int) -> int:
        """Remove expired lingering clients, at most ``budget``; returns how many."""
        gone = 0
        for lingering in (self._unconfirmed, self._confirmed):
            while gone < budget and lingering:
                client, (_, since) = next(iter(lingering.items()))
                if since + self._linger > now:
                    break
                del lingering[client]
                gone += 1
        return gone

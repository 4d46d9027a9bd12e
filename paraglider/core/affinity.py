"""``affinity: client``: which backend a client keeps, and for how long.

A client is bound from its first flow until ``linger`` seconds after its last flow ended. Bounded:
bound clients never outnumber the flows; lingering ones are kept to ``bound``. Who was never
``confirmed``, because none of its flows was answered, makes room first, then the oldest: a flood
of openings from forged addresses takes no client's backend. Rules: time is an argument; the cost
does not grow with the number of clients.
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
        """Other limits from here on."""
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
        """A flow of ``client`` to ``backend`` begins; the newest backend is the one to keep."""
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
        """A flow of ``client`` ended; the client lingers after its last."""
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
        """Forget lingering clients whose time is over, ``budget`` at most; how many went."""
        gone = 0
        for lingering in (self._unconfirmed, self._confirmed):
            while gone < budget and lingering:
                client, (_, since) = next(iter(lingering.items()))
                if since + self._linger > now:
                    break
                del lingering[client]
                gone += 1
        return gone

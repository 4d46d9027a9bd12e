"""``affinity: client``: which backend a client keeps, and for how long.

A client is bound from its first flow until ``linger`` seconds after its last flow ended. Bounded:
bound clients never outnumber the flows; lingering ones are kept to ``bound``, the oldest go
first. Rules: time is an argument; the cost does not grow with the number of clients.
"""

from __future__ import annotations

from collections import OrderedDict

from paraglider.core.pool import Backend


class Affinity:
    """Client address (packed) to backend, for one service."""

    def __init__(self, linger: float, bound: int) -> None:
        self._linger = linger
        self._bound = bound
        self._held: dict[bytes, tuple[Backend, int]] = {}
        self._lingering: OrderedDict[bytes, tuple[Backend, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held) + len(self._lingering)

    def limit(self, linger: float, bound: int) -> None:
        """Other limits from here on."""
        self._linger = linger
        self._bound = bound

    def find(self, client: bytes, now: float) -> Backend | None:
        """The backend that ``client`` is bound to, or None."""
        held = self._held.get(client)
        if held is not None:
            return held[0]
        lingering = self._lingering.get(client)
        if lingering is None or lingering[1] + self._linger <= now:
            return None
        return lingering[0]

    def hold(self, client: bytes, backend: Backend) -> None:
        """A flow of ``client`` to ``backend`` begins; the newest backend is the one to keep."""
        self._lingering.pop(client, None)
        held = self._held.get(client)
        self._held[client] = (backend, held[1] + 1 if held else 1)

    def release(self, client: bytes, now: float) -> None:
        """A flow of ``client`` ended; the client lingers after its last."""
        held = self._held.get(client)
        if held is None:
            return
        backend, flows = held
        if flows > 1:
            self._held[client] = (backend, flows - 1)
            return
        del self._held[client]
        self._lingering[client] = (backend, now)
        if len(self._lingering) > self._bound:
            self._lingering.popitem(last=False)

    def expire(self, now: float, budget: int) -> int:
        """Forget lingering clients whose time is over, ``budget`` at most; how many went."""
        gone = 0
        while gone < budget and self._lingering:
            client, (_, since) = next(iter(self._lingering.items()))
            if since + self._linger > now:
                break
            del self._lingering[client]
            gone += 1
        return gone

"""``weighted``: the backend with the fewest flows per unit of weight, as loaded means it.

loaded walks every flow for every new one; here each backend carries its own count, so the cost
is one pass over the backends whatever the number of flows. A flow counts from its first packet
until it is closed, as a connection does in HAProxy's leastconn; what is closed and remembered
does not.
"""

from __future__ import annotations

from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow


class LeastFlows:
    """Fewest live flows per weight; among equals the one that a further flow fills least, and
    among those the next in turn, so that equal backends share evenly from the first flow on.
    """

    def __init__(self, worker: int = 0) -> None:
        self._ready: tuple[Backend, ...] = ()
        self._turn = worker

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Counts live in the backends: only the list is kept."""
        self._ready = ready

    def pick(self, flow: NewFlow) -> Backend:
        """The least filled backend, looked for from the one whose turn it is."""
        ready = self._ready
        count = len(ready)
        at = self._turn % count
        best = ready[at]
        fill = (best.flows + best.opening) / best.weight
        for index in range(at + 1, at + count):
            backend = ready[index % count]
            other = (backend.flows + backend.opening) / backend.weight
            if other < fill or (other == fill and backend.weight > best.weight):
                best, fill, at = backend, other, index
        self._turn = at + 1
        return best

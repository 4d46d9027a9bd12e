"""``weighted``: the backend with the fewest flows per unit of weight, as loaded means it.

loaded walks every flow for every new one; here each backend carries its own count, so the cost
is one pass over the backends whatever the number of flows. A flow counts from its first packet
until it is closed, as a connection does in HAProxy's leastconn; what is closed and remembered
does not.
"""

from __future__ import annotations

from math import inf
from typing import Any

from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow, Strategy


class LeastFlows(Strategy):
    """Fewest live flows per weight; equals share by weight, smoothly as ``wrr`` does, so that flows
    that end before the next one comes are spread too.
    """

    name = "weighted"
    aliases = ("wlc", "leastconn")
    summary = (
        "the backend with the fewest live flows per unit of weight at that moment; equals share by"
        " weight"
    )
    counts_flows = True
    in_kernel = "wrr"
    kernel_note = "the kernel counts no live flows"

    def __init__(self, worker: int = 0, **_context: Any) -> None:
        self._ready: tuple[Backend, ...] = ()
        self._credit: list[int] = []
        self._first = worker

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Flows are counted in the backends: kept are the list, and the credit of those that stay,
        no more than a cycle is long.
        """
        kept = dict(zip(self._ready, self._credit, strict=True))
        total = sum(backend.weight for backend in ready)
        self._ready = ready
        self._credit = [max(-total, min(total, kept.get(backend, 0))) for backend in ready]
        if ready and not kept:  # workers begin with different ones of several equals
            self._credit[self._first % len(ready)] += 1

    def pick(self, flow: NewFlow) -> Backend:
        """The least filled backend; of several, the one with the most credit."""
        ready = self._ready
        least: list[int] = []
        fill = inf
        for index, backend in enumerate(ready):
            other = (backend.flows + backend.opening) / backend.weight
            if other < fill:
                fill = other
                least = [index]
            elif other == fill:
                least.append(index)
        if len(least) == 1:
            return ready[least[0]]
        credit = self._credit
        total = 0
        best = least[0]
        for index in least:
            weight = ready[index].weight
            total += weight
            credit[index] += weight
            if credit[index] > credit[best]:
                best = index
        credit[best] -= total
        return ready[best]

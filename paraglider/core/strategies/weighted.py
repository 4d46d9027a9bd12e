"""``weighted``: the backend with the fewest flows per unit of weight, as in loaded.

loaded walks all flows for every new one; here each backend has a counter, so a pick is one pass
over the backends. A flow counts from its first packet until it is closed, as in HAProxy's
leastconn; closed flows that are still in the table do not count.

The kernel takes turns by a table that has the picks to come, as far as they follow from the flows
of now; it is written again with the worker's next tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from math import inf
from typing import Any, Final

from paraglider.core.pool import Backend
from paraglider.core.strategies.base import DecisionTable, Load, NewFlow, Strategy

#: entries of the kernel's table: twice as many as were used of the one before, within these bounds,
#: and one for each backend at least
LEAST: Final = 64
MOST: Final = 1024


class LeastFlows(Strategy):
    """Fewest live flows per weight; equals share by weight, smoothly as ``wrr`` does, so that flows
    that end before the next one comes are spread too.
    """

    name = "weighted"
    aliases = ("wlc", "lc", "leastconn", "least_conn")
    summary = (
        "the backend with the fewest live flows per unit of weight at that moment; among equals by"
        " weight"
    )
    counts_flows = True
    kernel_pick = "turn"
    in_kernel = "wrr"
    kernel_note = "the kernel counts no live flows"

    def __init__(self, worker: int = 0, **_context: Any) -> None:
        self._ready: tuple[Backend, ...] = ()
        self._credit: list[int] = []
        self._first = worker
        self._picked: Sequence[int] = ()  # the kernel's table before, and its backends
        self._pickable: tuple[Backend, ...] = ()
        self._served: dict[Backend, float] = {}  # picks of the kernel's for a unit of weight

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

    def kernel_table(self, load: Load, turns: int) -> DecisionTable:
        """The next picks: each of the least filled backend, which then has one flow more; of
        several the one that the kernel has picked least for its weight, so that flows that end
        before the next table are spread too.
        """
        self._note(turns)
        ready, served = self._ready, self._served
        heap = []
        for index, backend in enumerate(ready):
            heap.append((load(backend) / backend.weight, served[backend], index))
        heapify(heap)
        picked = []
        for _ in range(max(LEAST, len(ready), min(2 * turns, MOST)) if ready else 0):
            fill, before, index = heap[0]
            picked.append(index)
            step = 1 / ready[index].weight
            heapreplace(heap, (fill + step, before + step, index))
        self._picked, self._pickable = picked, ready
        return DecisionTable(ready, picked)

    def _note(self, turns: int) -> None:
        """The kernel has used ``turns`` entries of the last table. A backend that is new, or
        returns, begins with the one that was picked least.
        """
        picked, served, size = self._picked, self._served, len(self._picked)
        rounds, rest = divmod(turns, size) if size else (0, 0)
        for used, times in ((picked if rounds else (), rounds), (picked[:rest], 1)):
            for index in used:
                backend = self._pickable[index]
                served[backend] += times / backend.weight
        known = [served[backend] for backend in self._ready if backend in served]
        first = min(known, default=0.0)
        self._served = {each: served.get(each, first) for each in self._ready}

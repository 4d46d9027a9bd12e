"""Timer wheel of flows: one bucket per second, and no timer work for a packet.

A flow is in the bucket of the second in which its timeout is checked. When the bucket comes due, a
flow that was seen in the meantime moves to a later bucket (``flow_table``).

Rules: the cost of adding and removing a flow does not depend on the number of flows.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from paraglider.core.flow import Flow

#: flows that are copied at a time while all are walked over
WALKED: Final = 1000


class TimerWheel:
    """Flows by the second in which their timeout is checked; removal is O(1).

    ``_seconds`` is a heap of the seconds that have a bucket, ``_hand`` the last second that came
    due: no flow is added before it. The search for a flow to evict walks around the first bucket
    with flows: ``_at`` is its position, ``_of`` the bucket's second.
    """

    __slots__ = ("_at", "_buckets", "_hand", "_of", "_seconds")

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, list[Flow]] = {}
        self._seconds: list[int] = []
        self._hand = int(now)
        self._at = 0
        self._of = -1

    def add(self, flow: Flow, deadline: float) -> None:
        """Put ``flow`` into the bucket of the first whole second after ``deadline``."""
        due = max(int(deadline), self._hand) + 1
        bucket = self._buckets.get(due)
        if bucket is None:
            bucket = self._buckets[due] = []
            heappush(self._seconds, due)
        flow.bucket = bucket
        flow.slot = len(bucket)
        bucket.append(flow)

    def due(self, now: float) -> list[Flow] | None:
        """The first bucket that is due and has flows, or None."""
        second = self.first()
        if second is None or second > now:
            return None
        self._hand = second
        return self._buckets[second]

    def first(self) -> int | None:
        """The first second whose bucket has flows, or None; empty buckets are dropped."""
        buckets, seconds = self._buckets, self._seconds
        while seconds:
            second = seconds[0]
            if buckets[second]:
                return second
            del buckets[heappop(seconds)]
        return None

    def walk(self) -> Iterator[Flow]:
        """Iterate over all flows while flows are added and removed; see ``FlowTable.walk``."""
        buckets = self._buckets
        walked: set[int] = set()
        while new := sorted(buckets.keys() - walked):
            walked.update(new)
            for second in new:
                # From its end: where a flow leaves, one that was yielded moves.
                bucket = buckets.get(second, [])
                at = len(bucket)
                while at > 0:
                    some = bucket[max(0, at - WALKED) : at]
                    yield from some
                    at = min(at - WALKED, len(bucket))

    def candidate(self, second: int) -> Flow:
        """The next flow of the bucket of ``second``, which ``first`` has just returned; each call
        advances by one flow. Flows added meanwhile come last; the newest one is skipped unless it
        is the only one.
        """
        bucket = self._buckets[second]
        if second != self._of:
            self._of, self._at = second, 0
        if self._at >= len(bucket) - 1:
            self._at = 0
        flow = bucket[self._at]
        self._at += 1
        return flow

    def continue_at(self, slot: int) -> None:
        """Continue with the flow at ``slot`` at the next ``candidate``."""
        self._at = slot

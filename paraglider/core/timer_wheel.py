"""Timer wheel of flows: a bucket for each second, and no timer work for a packet.

A flow is in the bucket of the second in which its timeout is looked at. When the bucket comes due,
a flow that was seen since then moves to its new bucket (``flow_table``).

Rules: adding and removing a flow costs the same however many flows there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from paraglider.core.flow import Flow


class TimerWheel:
    """Flows by the second in which their timeout has to be looked at; a flow leaves in O(1).

    ``_seconds`` is a heap of the seconds that have a bucket, ``_hand`` the last second that came
    due: no flow goes behind it. Who looks for a flow to evict goes round the first bucket that has
    any: ``_at`` is how far, and ``_of`` the bucket's second.
    """

    __slots__ = ("_at", "_buckets", "_hand", "_of", "_seconds")

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, list[Flow]] = {}
        self._seconds: list[int] = []
        self._hand = int(now)
        self._at = 0
        self._of = -1

    def add(self, flow: Flow, deadline: float) -> None:
        """Stand ``flow`` in the bucket of the first whole second after ``deadline``."""
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
        """Its flows, while flows come and go and move on; see ``FlowTable.walk``."""
        buckets = self._buckets
        walked: set[int] = set()
        while new := sorted(buckets.keys() - walked):
            walked.update(new)
            for second in new:
                yield from tuple(buckets.get(second, ()))

    def candidate(self, second: int) -> Flow:
        """The flow that is next to be looked at in the bucket of ``second``, which ``first`` has
        just returned; the one after it comes next. A flow that is put there meanwhile comes last,
        and the newest not at all while there are others.
        """
        bucket = self._buckets[second]
        if second != self._of:
            self._of, self._at = second, 0
        if self._at >= len(bucket) - 1:
            self._at = 0
        flow = bucket[self._at]
        self._at += 1
        return flow

    def go_on(self, slot: int) -> None:
        """The next candidate is that at ``slot``."""
        self._at = slot

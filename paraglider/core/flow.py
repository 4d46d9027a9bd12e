"""Flows and the bounded table that finds them by either direction's key.

A flow has two keys, one a direction, and stands in two dictionaries of its protocol: ``forward``
(client to VIP) and ``reverse`` (backend to client). Its timeout follows its state.

Expiry is a lazy timer wheel: a flow stands in one bucket of one second; when the bucket comes
due, a flow that was seen since moves on to its new bucket, so a packet costs no timer work. There
is one wheel a class of states: unanswered flows (half-open TCP, UDP without a reply, ICMP),
closing ones, and lasting ones. Under pressure the flow that is nearest to its end makes room, an
unanswered one first, then a closing one; lasting flows are never evicted: then the new flow is
refused.

Rules: time is an argument (monotonic seconds); every operation but ``expire`` costs the same
however many flows there are, and ``expire`` looks at ``budget`` flows at most. A flow that is
gone is in state GONE and in no table, no wheel: nothing is kept of it. A table with a ledger has
every flow in it, from the moment it begins to the moment it is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from paraglider.core.ledger import Ledger
from paraglider.core.rewrite import Rewrite

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58

PROTOCOL_NAMES: Final = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp6"}

# States. What moves a flow from one to the next stands in ``nat``.
SYN_SENT: Final = 0  # the client's SYN was seen
SYN_RECEIVED: Final = 1  # the backend answered it
ESTABLISHED: Final = 2  # the client went on
CLOSING: Final = 3  # a FIN or a RST was seen
UDP_NEW: Final = 4  # no reply yet
UDP_OPEN: Final = 5  # packets both ways, or a second one where no reply comes back
ICMP_OPEN: Final = 6
GONE: Final = 7

STATE_NAMES: Final = (
    "syn-sent",
    "syn-received",
    "established",
    "closing",
    "udp-new",
    "udp",
    "icmp",
    "gone",
)

#: state a flow starts in, by protocol
FIRST_STATE: Final = {TCP: SYN_SENT, UDP: UDP_NEW, ICMP: ICMP_OPEN, ICMP6: ICMP_OPEN}

#: class of each state but GONE, in the order in which flows make room: unanswered, closing, lasting
_CLASS: Final = (0, 0, 2, 1, 0, 2, 0)
_LASTING: Final = 2


#: refreshed flows that are moved on, at most, in search of one to evict
_MOST_MOVES: Final = 8


class Timeouts:
    """Idle seconds by state (RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2)."""

    __slots__ = ("by_state",)

    def __init__(
        self,
        syn: float = 240,
        established: float = 7440,
        closing: float = 240,
        udp: float = 300,
        icmp: float = 60,
    ) -> None:
        self.by_state = (syn, syn, established, closing, udp, udp, icmp, 0.0)


class Flow:
    """One connection. ``seen`` is when its last packet passed; ``bucket`` is the list of the
    timer wheel it stands in, at index ``slot``; ``record`` its number in the ledger, 0 for none.
    """

    __slots__ = (
        "bucket",
        "forward_key",
        "protocol",
        "record",
        "reverse_key",
        "rewrite",
        "seen",
        "slot",
        "state",
    )

    def __init__(
        self,
        protocol: int,
        forward_key: bytes,
        reverse_key: bytes,
        rewrite: Rewrite,
        state: int,
        seen: float,
    ) -> None:
        self.protocol = protocol
        self.forward_key = forward_key
        self.reverse_key = reverse_key
        self.rewrite = rewrite
        self.state = state
        self.seen = seen
        self.bucket: list[Flow] = []
        self.slot = 0
        self.record = 0

    def __repr__(self) -> str:
        backend = self.rewrite.backend.name
        return f"<Flow {self.protocol} {STATE_NAMES[self.state]} to {backend}>"


class Wheel:
    """Flows by the second in which their timeout has to be looked at; a flow leaves in O(1).

    ``_seconds`` is a heap of the seconds that have a bucket, ``_hand`` the last second that came
    due: no flow goes behind it.
    """

    __slots__ = ("_buckets", "_hand", "_seconds")

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, list[Flow]] = {}
        self._seconds: list[int] = []
        self._hand = int(now)

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

    def any_of(self, second: int) -> Flow:
        """A flow of the bucket of ``second``, which ``first`` has just returned."""
        return self._buckets[second][-1]


def _leave(flow: Flow) -> None:
    """Take ``flow`` out of its bucket: the last of the bucket takes its place."""
    bucket = flow.bucket
    last = bucket.pop()
    if last is not flow:
        bucket[flow.slot] = last
        last.slot = flow.slot


class FlowTable:
    """All flows of a worker: at most ``bound`` of them, of every protocol together.

    ``evicted`` counts flows that made room for others, ``expired`` those that were idle too long.
    ``ledger``, where set, is written to (``takeover`` reads it before).
    """

    def __init__(self, timeouts: Timeouts, bound: int, now: float = 0.0) -> None:
        self.timeouts = timeouts
        self._seconds = timeouts.by_state
        self.bound = bound
        self.forward: dict[int, dict[bytes, Flow]] = {p: {} for p in FIRST_STATE}
        self.reverse: dict[int, dict[bytes, Flow]] = {p: {} for p in FIRST_STATE}
        self.evicted = 0
        self.expired = 0
        self.ledger: Ledger | None = None
        self._count = 0
        self._wheels = (Wheel(now), Wheel(now), Wheel(now))
        self._turn = 0

    def __len__(self) -> int:
        return self._count

    def limit(self, timeouts: Timeouts) -> None:
        """Other timeouts from here on. A flow that would end sooner by them may end when it would
        have without: when that comes, they are asked.
        """
        self.timeouts = timeouts
        self._seconds = timeouts.by_state

    def make_room(self, now: float) -> bool:
        """Make sure that one more flow may be opened; False when every flow is a lasting one."""
        if self._count < self.bound:
            return True
        victim = self._nearest(self._wheels[0]) or self._nearest(self._wheels[1])
        if victim is None:
            return False
        self.forget(victim, now)
        self.evicted += 1
        return True

    def open(
        self, protocol: int, key: bytes, reverse_key: bytes, rewrite: Rewrite, now: float
    ) -> Flow:
        """A new flow from the packet with ``key``; neither key may belong to a live flow, and
        ``make_room`` must have said yes.
        """
        flow = Flow(protocol, key, reverse_key, rewrite, FIRST_STATE[protocol], now)
        rewrite.backend.picked += 1
        self.enter(flow)
        return flow

    def enter(self, flow: Flow) -> None:
        """Have ``flow`` in the table, a new one or one that a ledger knew; as ``open`` asks."""
        protocol, rewrite = flow.protocol, flow.rewrite
        self.forward[protocol][flow.forward_key] = flow
        self.reverse[protocol][flow.reverse_key] = flow
        self._count += 1
        self._schedule(flow)
        rewrite.backend.flows += 1
        if rewrite.affinity is not None:
            rewrite.affinity.hold(flow.forward_key[: len(rewrite.vip)], rewrite.backend)
            self._confirm(flow)
        if self.ledger is not None and not flow.record:
            flow.record = self.ledger.write(rewrite.identity, flow.forward_key, flow.state)

    def move(self, flow: Flow, state: int, now: float) -> None:
        """Put a live flow into ``state``, with that state's timeout from ``now`` on."""
        if state == flow.state:
            return
        _leave(flow)
        flow.state = state
        flow.seen = now
        self._schedule(flow)
        self._confirm(flow)
        if flow.record and self.ledger is not None:
            self.ledger.move(flow.record, state)

    def _confirm(self, flow: Flow) -> None:
        """Tell the affinity of a flow that lasts: it was answered."""
        rewrite = flow.rewrite
        if rewrite.affinity is not None and _CLASS[flow.state] == _LASTING:
            rewrite.affinity.confirm(flow.forward_key[: len(rewrite.vip)])

    def forget(self, flow: Flow, now: float) -> None:
        """Take a live flow out of every table."""
        _leave(flow)
        del self.forward[flow.protocol][flow.forward_key]
        del self.reverse[flow.protocol][flow.reverse_key]
        flow.state = GONE
        self._count -= 1
        if flow.record and self.ledger is not None:
            self.ledger.erase(flow.record)
            flow.record = 0
        rewrite = flow.rewrite
        rewrite.backend.flows -= 1
        if rewrite.affinity is not None:
            rewrite.affinity.release(flow.forward_key[: len(rewrite.vip)], now)

    def expire(self, now: float, budget: int = 2000) -> int:
        """Forget flows that were idle too long; look at ``budget`` flows at most.

        Returns how many flows were looked at: with less than ``budget``, all that is due is done.
        """
        if self.ledger is not None:
            self.ledger.tick(now)
        looked = 0
        timeouts = self._seconds
        self._turn = (self._turn + 1) % 3  # so that no class of flows starves another
        for wheel in self._wheels[self._turn :] + self._wheels[: self._turn]:
            while looked < budget:
                bucket = wheel.due(now)
                if bucket is None:
                    break
                flow = bucket[-1]
                looked += 1
                if flow.seen + timeouts[flow.state] > now:
                    _leave(flow)
                    self._schedule(flow)
                else:
                    self.forget(flow, now)
                    self.expired += 1
        return looked

    def walk(self) -> Iterator[Flow]:
        """Every flow, for one who takes a few at a time between packets.

        Flows may come, go and change meanwhile. A flow that lives all through the walk is given,
        some twice, as long as the walk takes less than the shortest timeout; what is given may be
        GONE since. No copy of all flows is made: a bucket is copied when its turn comes. Flows
        move on to later buckets, and from the unanswered to the lasting and the closing ones, so
        the walk goes the same way.
        """
        unanswered, closing, lasting = self._wheels
        for wheel in (unanswered, lasting, closing):
            yield from wheel.walk()

    def _nearest(self, wheel: Wheel) -> Flow | None:
        """The flow of ``wheel`` nearest to its end, or None when the wheel is empty.

        A flow that was seen since it was put into its bucket moves on and is passed over; but only
        so many are, that the cost stays bounded: then the last of them has to do.
        """
        flow = None
        for _ in range(_MOST_MOVES):
            second = wheel.first()
            if second is None:
                return None
            flow = wheel.any_of(second)
            if flow.seen + self._seconds[flow.state] < second:
                break
            _leave(flow)
            self._schedule(flow)
        return flow

    def _schedule(self, flow: Flow) -> None:
        deadline = flow.seen + self._seconds[flow.state]
        self._wheels[_CLASS[flow.state]].add(flow, deadline)

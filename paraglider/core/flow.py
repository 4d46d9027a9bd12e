"""Flows and the bounded table that finds them by either direction's key.

A flow has two keys, one a direction, and stands in two dictionaries of its protocol: ``forward``
(client to VIP) and ``reverse`` (backend to client). Its timeout follows its state
(``flow_states``).

Expiry is a lazy timer wheel: a flow stands in one bucket of one second; when the bucket comes
due, a flow that was seen since moves on to its new bucket, so a packet costs no timer work. There
is one wheel a class of states.

In a full table a new flow takes the place of another by ``_FOR_TCP`` or ``_FOR_OTHERS``: classes
of states in their order, each with the seconds that a flow must have been idle. Of one class the
oldest goes, and of the oldest few one of the clients' network (/24, /56) that has the most flows,
so that one network's flood costs the others nothing. A flow that lives is never evicted for a new
one.

Rules: time is an argument (monotonic seconds); every operation but ``expire`` costs the same
however many flows there are, and ``expire`` looks at ``budget`` flows at most. A flow that is
gone is in state GONE and in no table, no wheel: nothing is kept of it. A table with a journal has
every flow in it, from the moment it begins to the moment it is gone.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from paraglider.core.flow_states import (
    ACTIVE,
    CLASS_OF,
    CLASSES,
    CLOSED_CLASS,
    DATAGRAM_CLASS,
    DONE_CLASS,
    GONE,
    GROUP_OF,
    GROWTHS,
    HALF_OPEN_CLASS,
    ICMP_OPEN,
    LASTING_CLASS,
    OPENING,
    SINGLE_CLASS,
    STATE_NAMES,
    SYN_SENT,
    UDP_ANSWERED,
    UDP_NEW,
)
from paraglider.core.journal import Journal
from paraglider.core.translation import Translation

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58

PROTOCOL_NAMES: Final = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp6"}

#: state a flow starts in, by protocol
FIRST_STATE: Final = {TCP: SYN_SENT, UDP: UDP_NEW, ICMP: ICMP_OPEN, ICMP6: ICMP_OPEN}

#: seconds for which an opening is spared while there are older ones
YOUNG: Final = 3.0
#: seconds of silence after which a UDP flow may be evicted: more than a lease of dsr lasts
SILENT: Final = 35.0
#: seconds of silence after which an established flow may be evicted (RFC 5382 REQ-5)
ASLEEP: Final = 7200.0

#: class of states and least idle seconds, in the order in which flows make room for a TCP flow …
_FOR_TCP: Final = (
    (CLOSED_CLASS, 0.0),
    (DONE_CLASS, YOUNG),
    (HALF_OPEN_CLASS, YOUNG),
    (SINGLE_CLASS, YOUNG),
    (HALF_OPEN_CLASS, 0.0),
    (SINGLE_CLASS, 0.0),
    (DATAGRAM_CLASS, SILENT),
    (LASTING_CLASS, ASLEEP),
)
#: … and for any other: its own kind's floods hit its own kind first
_FOR_OTHERS: Final = (
    (CLOSED_CLASS, 0.0),
    (DONE_CLASS, YOUNG),
    (HALF_OPEN_CLASS, YOUNG),
    (SINGLE_CLASS, 0.0),
    (DATAGRAM_CLASS, SILENT),
    (HALF_OPEN_CLASS, 0.0),
    (LASTING_CLASS, ASLEEP),
)

#: refreshed flows that are moved on, at most, in search of one to evict in one class
_MOST_MOVES: Final = 8
#: flows that are compared by their clients' network, at most, to evict one of them
_COMPARED: Final = 8
#: counters of flows by clients' network; several networks may share one
_CROWDS: Final = 1 << 14

#: flows whose client has sent FIN and whose backend is not seen: the share of the table, and how
#: many in any case, that are kept for as long as their timeout; more end after _DONE_KEPT seconds
_DONE_SHARE: Final = 8
_DONE_LEAST: Final = 1000
_DONE_KEPT: Final = 60.0


class Timeouts:
    """Idle seconds by state (RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2).

    ``syn`` is for flows that are half-open or wait for the last ACK, ``established`` for
    half-closed ones too, ``closed_rst`` and ``closed_fin`` for those that were closed by RST and by
    both FINs.
    """

    __slots__ = ("by_state",)

    def __init__(
        self,
        syn: float = 240,
        established: float = 7440,
        closed_rst: float = 10,
        closed_fin: float = 60,
        udp: float = 120,
        icmp: float = 60,
    ) -> None:
        seconds = {
            "syn-sent": syn,
            "syn-received": syn,
            "unconfirmed": syn,
            "last-ack": syn,
            "last-ack-backend": syn,
            "established": established,
            "fin-client": established,
            "fin-backend": established,
            "client-done": established,
            "time-wait": closed_fin,
            "reset": closed_rst,
            "client-reset": closed_rst,
            "udp-new": udp,
            "udp-answered": udp,
            "udp": udp,
            "icmp": icmp,
            "gone": 0.0,
        }
        self.by_state = tuple(seconds[name] for name in STATE_NAMES)


class Flow:
    """One connection. ``seen`` is when its last packet passed; ``bucket`` is the list of the
    timer wheel it stands in, at index ``slot``; ``record`` its number in the journal, 0 for none.

    Of TCP: ``expected`` is the sequence number that the client's next segment should have, as far
    as it is known here; ``progress`` the last number that counted as evidence (``nat``,
    ``director``), ``proof`` how often it has grown; 0 where nothing is known. A flow that was
    established has all the proof that there is.
    """

    __slots__ = (
        "bucket",
        "expected",
        "forward_key",
        "progress",
        "proof",
        "protocol",
        "record",
        "reverse_key",
        "seen",
        "slot",
        "state",
        "translation",
    )

    def __init__(
        self,
        protocol: int,
        forward_key: bytes,
        reverse_key: bytes,
        translation: Translation,
        state: int,
        seen: float,
    ) -> None:
        self.protocol = protocol
        self.forward_key = forward_key
        self.reverse_key = reverse_key
        self.translation = translation
        self.state = state
        self.seen = seen
        self.bucket: list[Flow] = []
        self.slot = 0
        self.record = 0
        self.expected = 0
        self.progress = 0
        self.proof = 0 if GROUP_OF[state] == OPENING else GROWTHS

    def __repr__(self) -> str:
        backend = self.translation.backend.name
        return f"<Flow {self.protocol} {STATE_NAMES[self.state]} to {backend}>"


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


class FlowTable:
    """All flows of a worker: at most ``bound`` of them, of every protocol together.

    ``active``, ``opening`` and ``closing`` count them by what their state counts as
    (``flow_states``). ``evicted`` counts flows that made room for others, ``expired`` those that
    were idle too long. ``journal``, where set, is written to (``takeover`` reads it before).
    """

    def __init__(self, timeouts: Timeouts, bound: int, now: float = 0.0) -> None:
        self.timeouts = timeouts
        self._seconds = timeouts.by_state
        self.bound = bound
        self.forward: dict[int, dict[bytes, Flow]] = {p: {} for p in FIRST_STATE}
        self.reverse: dict[int, dict[bytes, Flow]] = {p: {} for p in FIRST_STATE}
        self.evicted = 0
        self.expired = 0
        self.journal: Journal | None = None
        self.active = self.opening = self.closing = 0
        self._count = 0
        self._done = 0
        self._wheels = tuple(TimerWheel(now) for _ in range(CLASSES))
        self._crowds = array("I", bytes(4 * _CROWDS))
        self._turn = 0

    def __len__(self) -> int:
        return self._count

    def limit(self, timeouts: Timeouts) -> None:
        """Other timeouts from here on. A flow that would end sooner by them may end when it would
        have without: when that comes, they are asked.
        """
        self.timeouts = timeouts
        self._seconds = timeouts.by_state

    def make_room(self, protocol: int, now: float) -> bool:
        """Make sure that one more flow of ``protocol`` may be opened; False when all flows live."""
        if self._count < self.bound:
            return True
        for kind, idle in _FOR_TCP if protocol == TCP else _FOR_OTHERS:
            victim = self._victim(self._wheels[kind], idle, now)
            if victim is not None:
                self.forget(victim, now)
                self.evicted += 1
                return True
        return False

    def open(
        self, protocol: int, key: bytes, reverse_key: bytes, translation: Translation, now: float
    ) -> Flow:
        """A new flow from the packet with ``key``; neither key may belong to a live flow, and
        ``make_room`` must have said yes.
        """
        flow = Flow(protocol, key, reverse_key, translation, FIRST_STATE[protocol], now)
        translation.backend.picked += 1
        self.enter(flow)
        return flow

    def enter(self, flow: Flow) -> None:
        """Have ``flow`` in the table, a new one or one that a journal knew; as ``open`` asks."""
        protocol, translation = flow.protocol, flow.translation
        self.forward[protocol][flow.forward_key] = flow
        self.reverse[protocol][flow.reverse_key] = flow
        self._count += 1
        self._crowds[_crowd(flow.forward_key)] += 1
        self._schedule(flow)
        self._tally(translation, GROUP_OF[flow.state], 1)
        if translation.affinity is not None:
            translation.affinity.hold(flow.forward_key[: len(translation.vip)], translation.backend)
            self._confirm(flow)
        if self.journal is not None and not flow.record:
            flow.record = self.journal.write(translation.identity, flow.forward_key, flow.state)

    def move(self, flow: Flow, state: int, now: float) -> None:
        """Put a live flow into ``state``, with that state's timeout from ``now`` on."""
        if state == flow.state:
            return
        self._leave(flow)
        if GROUP_OF[state] != GROUP_OF[flow.state]:
            self._tally(flow.translation, GROUP_OF[flow.state], -1)
            self._tally(flow.translation, GROUP_OF[state], 1)
            if GROUP_OF[state] == ACTIVE:
                flow.proof = GROWTHS
        flow.state = state
        flow.seen = now
        self._schedule(flow)
        self._confirm(flow)
        if flow.record and self.journal is not None:
            self.journal.move(flow.record, state)

    def _confirm(self, flow: Flow) -> None:
        """Tell the affinity of a flow that lives: it was answered, as far as that is seen."""
        translation = flow.translation
        if (
            translation.affinity is None
            or GROUP_OF[flow.state] != ACTIVE
            or flow.state == ICMP_OPEN
        ):
            return
        if flow.state != UDP_ANSWERED or not translation.direct:
            translation.affinity.confirm(flow.forward_key[: len(translation.vip)])

    def forget(self, flow: Flow, now: float) -> None:
        """Take a live flow out of every table."""
        self._leave(flow)
        del self.forward[flow.protocol][flow.forward_key]
        del self.reverse[flow.protocol][flow.reverse_key]
        translation = flow.translation
        self._tally(translation, GROUP_OF[flow.state], -1)
        self._crowds[_crowd(flow.forward_key)] -= 1
        flow.state = GONE
        self._count -= 1
        if flow.record and self.journal is not None:
            self.journal.erase(flow.record)
            flow.record = 0
        if translation.affinity is not None:
            translation.affinity.release(flow.forward_key[: len(translation.vip)], now)

    def expire(self, now: float, budget: int = 2000) -> int:
        """Forget flows that were idle too long; look at ``budget`` flows at most.

        Returns how many flows were looked at: with less than ``budget``, all that is due is done.
        """
        if self.journal is not None:
            self.journal.tick(now)
        looked = 0
        self._turn = (self._turn + 1) % CLASSES  # so that no class of flows starves another
        for wheel in self._wheels[self._turn :] + self._wheels[: self._turn]:
            while looked < budget:
                bucket = wheel.due(now)
                if bucket is None:
                    break
                flow = bucket[-1]
                looked += 1
                if self._deadline(flow) > now:
                    self._leave(flow)
                    self._schedule(flow)
                else:
                    self.forget(flow, now)
                    self.expired += 1
        while looked < budget and self._done > max(self.bound // _DONE_SHARE, _DONE_LEAST):
            looked += 1
            victim = self._victim(self._wheels[DONE_CLASS], _DONE_KEPT, now)
            if victim is None:
                break
            self.forget(victim, now)
            self.expired += 1
        return looked

    def walk(self) -> Iterator[Flow]:
        """Every flow, for one who takes a few at a time between packets.

        Flows may come, go and change meanwhile. A flow that lives all through the walk is given,
        some twice, as long as the walk takes less than the shortest timeout and the flow goes on
        from opening to closed and not back; what is given may be GONE since. No copy of all flows
        is made: a bucket is copied when its turn comes. Flows move on to later buckets, and from
        the unanswered to the lasting and the closed ones, so the walk goes the same way.
        """
        closed, done, half_open, single, datagrams, lasting = self._wheels
        for wheel in (half_open, single, datagrams, lasting, done, closed):
            yield from wheel.walk()

    def _victim(self, wheel: TimerWheel, idle: float, now: float) -> Flow | None:
        """The flow of ``wheel`` that makes room: of the few that are nearest to their end, and idle
        for ``idle`` seconds at least, one whose client's network has most flows; or None.

        A flow that was seen since it was put into its bucket moves on and is passed over; but only
        so many are, that the cost stays bounded.
        """
        victim = None
        most = -1
        moves = compared = 0
        while moves < _MOST_MOVES and compared < _COMPARED:
            second = wheel.first()
            if second is None:
                break
            flow = wheel.candidate(second)
            if flow is victim:  # once round
                break
            if self._deadline(flow) >= second:
                self._leave(flow)
                self._schedule(flow)
                moves += 1
                continue
            compared += 1
            if flow.seen + idle > now:  # and so are those behind it
                wheel.go_on(flow.slot)
                break
            crowd = self._crowds[_crowd(flow.forward_key)]
            if crowd > most:
                most = crowd
                victim = flow
        if victim is not None:
            wheel.go_on(victim.slot + 1)  # behind the last one, which takes its place
        return victim

    def _deadline(self, flow: Flow) -> float:
        """When the time of ``flow`` is over."""
        seconds = self._seconds[flow.state]
        if flow.state == UDP_ANSWERED and flow.translation.udp_reply:
            seconds = flow.translation.udp_reply
        return flow.seen + seconds

    def _schedule(self, flow: Flow) -> None:
        kind = CLASS_OF[flow.state]
        if kind == DONE_CLASS:
            self._done += 1
        self._wheels[kind].add(flow, self._deadline(flow))

    def _leave(self, flow: Flow) -> None:
        """Take ``flow`` out of its bucket: the last of the bucket takes its place."""
        if CLASS_OF[flow.state] == DONE_CLASS:
            self._done -= 1
        bucket = flow.bucket
        last = bucket.pop()
        if last is not flow:
            bucket[flow.slot] = last
            last.slot = flow.slot

    def _tally(self, translation: Translation, group: int, change: int) -> None:
        """Count ``change`` flows more in ``group``, here and for the backend."""
        backend = translation.backend
        if group == ACTIVE:
            self.active += change
            backend.flows += change
        elif group == OPENING:
            self.opening += change
            backend.opening += change
        else:
            self.closing += change
            backend.closing += change


def _crowd(key: bytes) -> int:
    """Where flows of the network (/24, /56) of the client with ``key`` are counted."""
    return hash(key[:3] if len(key) == 12 else key[:7]) & (_CROWDS - 1)

"""The bounded table of flows, which finds a flow by the key of either direction.

A flow is in two dictionaries of its protocol: ``forward`` (client to VIP) and ``reverse`` (backend
to client). Its timeout follows its state (``flow_states``) and is looked at by a timer wheel, one
for each class of states, so a packet costs no timer work.

In a full table a new flow takes the place of another by ``_FOR_TCP`` or ``_FOR_OTHERS``: classes
of states in their order, each with the seconds that a flow must have been idle. Of one class the
oldest flow is evicted; of the few oldest, one of the client network (/24, /56) with the most flows,
so that a flood from one network does not evict the flows of others. A live flow is never evicted
for a new one.

Where the packets of flows pass without the worker, the table has their carrier
(``forward.carrier.Carrier``): every flow that enters the table is installed there, and removed when
it leaves. The carrier is asked when a flow was last seen before it expires or is evicted.

Rules: time is an argument (monotonic seconds); every operation but ``expire`` costs the same
however many flows there are, and ``expire`` looks at ``budget`` flows at most. A flow that has
ended is in state GONE, and in no table and no wheel. A table with a journal has a record of every
flow from its first packet to its end.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, Protocol

from paraglider.core.flow import FIRST_STATE, TCP, Flow, FlowTimeouts
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
    UDP_ANSWERED,
)
from paraglider.core.journal import Journal
from paraglider.core.timer_wheel import TimerWheel
from paraglider.core.translation import Translation

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
_NETWORKS: Final = 1 << 14

#: flows whose client has sent FIN and whose backend is not seen: the share of the table, and how
#: many in any case, that are kept for as long as their timeout; more end after _DONE_KEPT seconds
_DONE_SHARE: Final = 8
_DONE_LEAST: Final = 1000
_DONE_KEPT: Final = 60.0


class FlowCarrier(Protocol):
    """What a table needs of the carrier of its flows (``forward.carrier.Carrier``)."""

    def install(self, flow: Flow) -> int:
        """``flow`` is in the table: carry it from its next packet on."""

    def last_seen(self, flow: Flow) -> float:
        """When the last packet of ``flow`` passed (monotonic seconds)."""

    def remove(self, flow: Flow) -> None:
        """``flow`` has left the table: it is carried no more."""


class FlowTable:
    """All flows of a worker: at most ``bound`` of them, of every protocol together.

    ``active``, ``opening`` and ``closing`` count them by what their state counts as
    (``flow_states``). ``evicted`` counts flows that made room for others, ``expired`` those that
    were idle too long. ``journal``, where set, is written to (``restore`` reads it before).
    ``carrier``, where set, carries the flows outside of this process.
    """

    def __init__(self, timeouts: FlowTimeouts, bound: int, now: float = 0.0) -> None:
        self.timeouts = timeouts
        self._seconds = timeouts.by_state
        self.bound = bound
        self.forward: dict[int, dict[bytes, Flow]] = {p: {} for p in FIRST_STATE}
        self.reverse: dict[int, dict[bytes, Flow]] = {p: {} for p in FIRST_STATE}
        self.evicted = 0
        self.expired = 0
        self.journal: Journal | None = None
        self.carrier: FlowCarrier | None = None
        self.active = self.opening = self.closing = 0
        self._count = 0
        self._done = 0
        self._wheels = tuple(TimerWheel(now) for _ in range(CLASSES))
        self._networks = array("I", bytes(4 * _NETWORKS))
        self._turn = 0

    def __len__(self) -> int:
        return self._count

    def limit(self, timeouts: FlowTimeouts) -> None:
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
        translation.backend.conns += 1
        self.enter(flow)
        return flow

    def enter(self, flow: Flow) -> None:
        """Have ``flow`` in the table, a new one or one that a journal knew; as ``open`` asks."""
        protocol, translation = flow.protocol, flow.translation
        self.forward[protocol][flow.forward_key] = flow
        self.reverse[protocol][flow.reverse_key] = flow
        self._count += 1
        self._networks[_network(flow.forward_key)] += 1
        self._schedule(flow)
        self._tally(translation, GROUP_OF[flow.state], 1)
        if translation.affinity is not None:
            translation.affinity.hold(flow.forward_key[: len(translation.vip)], translation.backend)
            self._confirm(flow)
        if self.carrier is not None:
            self.carrier.install(flow)
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
        self._networks[_network(flow.forward_key)] -= 1
        flow.state = GONE
        self._count -= 1
        if flow.record and self.journal is not None:
            self.journal.erase(flow.record)
            flow.record = 0
        if self.carrier is not None:
            self.carrier.remove(flow)
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
                if self._deadline(flow) > now or (
                    self._refresh(flow) and self._deadline(flow) > now
                ):
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
            if self._deadline(flow) >= second or self._refresh(flow):
                self._leave(flow)
                self._schedule(flow)
                moves += 1
                continue
            compared += 1
            if flow.seen + idle > now:  # and so are those behind it
                wheel.go_on(flow.slot)
                break
            flows = self._networks[_network(flow.forward_key)]
            if flows > most:
                most = flows
                victim = flow
        if victim is not None:
            wheel.go_on(victim.slot + 1)  # behind the last one, which takes its place
        return victim

    def _refresh(self, flow: Flow) -> bool:
        """Ask the carrier when ``flow`` was last seen; whether that is later than known here."""
        if self.carrier is None:
            return False
        seen = self.carrier.last_seen(flow)
        if seen <= flow.seen:
            return False
        flow.seen = seen
        return True

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


def _network(key: bytes) -> int:
    """The place in ``_networks`` of the network (/24, /56) of the client with ``key``."""
    return hash(key[:3] if len(key) == 12 else key[:7]) & (_NETWORKS - 1)

"""The bounded table of flows, which finds a flow by the key of either direction.

A flow is in two indexes of its protocol: ``forward`` (client to VIP) and ``reverse`` (backend to
client). Its timeout depends on its state (``flow_states``). Timer wheels, one per class of
states, check the timeouts, so a packet costs no timer work.

In a full table a new flow evicts another by ``_FOR_TCP`` or ``_FOR_OTHERS``: the classes of states
in the order in which they are searched, each with the seconds that a flow must have been idle.
Within a class the flows nearest to their timeout are compared, and the one whose client network
(/24, /56) has the most flows is evicted, so that a flood from one network does not evict the flows
of others. A live flow is never evicted for a new one.

If the packets of flows bypass the worker, the table has their carrier (``flow_interfaces``). Before
a carried flow expires or is evicted, it is refreshed from the carrier.

Rules: time is an argument (monotonic seconds). The cost of an operation does not depend on the
number of flows; ``expire`` checks at most ``budget`` flows. A flow that has ended is in state GONE,
and in no table and no wheel. With a journal, every flow has a record in it until it ends.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from paraglider.core.flow import FIRST_STATE, TCP, Flow, FlowTimeouts
from paraglider.core.flow_index import FlowIndex
from paraglider.core.flow_interfaces import CompactFlowsOf, FlowCarrier, UnreadFlows
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

#: seconds for which an opening flow is not evicted while there are older ones
YOUNG: Final = 3.0
#: seconds of silence after which a UDP flow may be evicted: more than a lease of dsr lasts
SILENT: Final = 35.0
#: seconds of silence after which an established flow may be evicted (RFC 5382 REQ-5)
ASLEEP: Final = 7200.0

#: class of states and least idle seconds, in the order in which a new TCP flow evicts flows
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
#: the same for UDP and ICMP flows: a flood of a protocol evicts flows of that protocol first
_FOR_OTHERS: Final = (
    (CLOSED_CLASS, 0.0),
    (DONE_CLASS, YOUNG),
    (HALF_OPEN_CLASS, YOUNG),
    (SINGLE_CLASS, 0.0),
    (DATAGRAM_CLASS, SILENT),
    (HALF_OPEN_CLASS, 0.0),
    (LASTING_CLASS, ASLEEP),
)

#: most flows that are rescheduled during the search for a flow to evict, per class
_MOST_MOVES: Final = 8
#: most flows whose client networks are compared to evict one of them
_COMPARED: Final = 8
#: counters of flows by clients' network; several networks may share one
_NETWORKS: Final = 1 << 14

#: one-sided flows after the client's FIN: 1/_DONE_SHARE of the table, but at least _DONE_LEAST, are
#: kept until their timeout; further ones end after _DONE_KEPT seconds
_DONE_SHARE: Final = 8
_DONE_LEAST: Final = 1000
_DONE_KEPT: Final = 60.0


class FlowTable:
    """All flows of a worker, at most ``bound`` over all protocols.

    ``active``, ``opening`` and ``closing`` are the numbers of flows by the group of their state
    (``flow_states``). ``evicted`` counts flows that were evicted for others, ``expired`` flows that
    timed out. ``journal`` is the journal to write, if any (``restore`` reads it first).
    ``carrier``, if any, carries the flows outside of this process. ``unread``, if any, has flows
    that are restored when a packet needs them, and at the latest in a while; they have ``reserved``
    places. ``compact`` has the compact flows by protocol, if there may be any; none is made
    compact while ``held`` is not 0, or the journal is ``damaged``.
    """

    def __init__(self, timeouts: FlowTimeouts, bound: int, now: float = 0.0) -> None:
        self.timeouts = timeouts
        self._seconds = timeouts.by_state
        self.bound = bound
        self.forward = {protocol: FlowIndex() for protocol in FIRST_STATE}
        self.reverse = {protocol: FlowIndex(reverse=True) for protocol in FIRST_STATE}
        self.evicted = 0
        self.expired = 0
        self.journal: Journal | None = None
        self.carrier: FlowCarrier | None = None
        self.unread: UnreadFlows | None = None
        self.reserved = 0
        self.compact: tuple[CompactFlowsOf, ...] = ()
        self.held = 0
        self.damaged = False
        self.active = self.opening = self.closing = 0
        self._count = 0
        self._done = 0
        self._wheels = tuple(TimerWheel(now) for _ in range(CLASSES))
        self._networks = array("I", bytes(4 * _NETWORKS))
        self._turn = 0

    def __len__(self) -> int:
        return self._count + self.reserved

    def limit(self, timeouts: FlowTimeouts) -> None:
        """Set other timeouts. They take effect when a flow's scheduled check comes due, so a flow
        may live until the end of its old timeout.
        """
        self.timeouts = timeouts
        self._seconds = timeouts.by_state

    def make_room(self, protocol: int, now: float) -> bool:
        """Evict a flow if the table is full, so that one of ``protocol`` can be opened; returns
        False if no flow can be evicted.
        """
        if self._count + self.reserved < self.bound:
            return True
        for kind, idle in _FOR_TCP if protocol == TCP else _FOR_OTHERS:
            for flows in self.compact:
                if CLASS_OF[flows.state] == kind:
                    flows.expand_idle(now, idle)
            victim = self._victim(self._wheels[kind], idle, now)
            if victim is not None:
                self.forget(victim, now)
                self.evicted += 1
                return True
        return False

    def open(
        self, protocol: int, key: bytes, reverse_key: bytes, translation: Translation, now: float
    ) -> Flow:
        """Open a flow for the packet with ``key``. Neither key may belong to a live flow, and
        ``make_room`` must have returned True.
        """
        flow = Flow(protocol, key, reverse_key, translation, FIRST_STATE[protocol], now)
        translation.backend.conns += 1
        self.add(flow)
        return flow

    def restore(self, flow: Flow) -> None:
        """Add ``flow`` from a journal, and tell the carrier; conditions as of ``open``."""
        self.add(flow)
        if self.carrier is not None:
            self.carrier.restore(flow)

    def add(self, flow: Flow) -> None:
        """Add ``flow``, a new one or one restored from a journal; conditions as of ``open``."""
        translation = flow.translation
        self.attach(flow)
        self._count += 1
        self._networks[_network(flow.forward_key)] += 1
        self._tally(translation, GROUP_OF[flow.state], 1)
        if translation.affinity is not None:
            translation.affinity.hold(flow.forward_key[: len(translation.vip)], translation.backend)
            self._confirm(flow)
        if self.journal is not None and not flow.record:
            flow.record = self.journal.write(translation.identity, flow.forward_key, flow.state)

    def attach(self, flow: Flow) -> None:
        """Put ``flow``, which is counted, into indexes and wheel."""
        forward, reverse = self.forward[flow.protocol], self.reverse[flow.protocol]
        forward.add(flow.forward_key, flow)
        reverse.add(flow.reverse_key, flow)
        self._schedule(flow)

    def detach(self, flow: Flow) -> None:
        """Take ``flow``, which stays counted, out of indexes and wheel."""
        self._unschedule(flow)
        forward, reverse = self.forward[flow.protocol], self.reverse[flow.protocol]
        forward.remove(flow.forward_key)
        reverse.remove(flow.reverse_key)

    def lose(self, translation: Translation) -> None:
        """A compact flow with ``translation`` is lost: its key is not known."""
        self._count -= 1
        self._tally(translation, ACTIVE, -1)
        if self.carrier is not None:
            self.carrier.lose_compact()

    def move(self, flow: Flow, state: int, now: float) -> None:
        """Set the state of a live flow; the timeout of ``state`` starts at ``now``."""
        if state == flow.state:
            return
        self._unschedule(flow)
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
        if self.carrier is not None:
            self.carrier.moved(flow)

    def refresh(self, flow: Flow) -> bool:
        """Update a live flow from its carrier: time of the last packet, and state.

        Returns whether either has changed.
        """
        return flow.carried != 0 and self.carrier is not None and self.carrier.refresh(flow)

    def fetch(self, protocol: int, key: bytes, now: float) -> bool:
        """Add the flow that the carrier decided for a packet with ``key``, a client's or a
        backend's, if the table has none or one that has ended; returns whether it has one now.
        """
        return self.carrier is not None and self.carrier.fetch(protocol, key, now)

    def _confirm(self, flow: Flow) -> None:
        """Confirm the client's affinity if the state of ``flow`` shows that it was answered."""
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
        """Remove a live flow from all tables."""
        self.detach(flow)
        translation = flow.translation
        self._tally(translation, GROUP_OF[flow.state], -1)
        self._networks[_network(flow.forward_key)] -= 1
        flow.state = GONE
        self._count -= 1
        if flow.record and self.journal is not None:
            self.journal.erase(flow.record)
            flow.record = 0
        if flow.carried and self.carrier is not None:
            self.carrier.remove(flow)
        if translation.affinity is not None:
            translation.affinity.release(flow.forward_key[: len(translation.vip)], now)

    def expire(self, now: float, budget: int = 2000) -> int:
        """Remove flows that have timed out; checks at most ``budget`` flows, of which carried ones
        count for three.

        Returns the number of flows checked; below ``budget``, all flows that were due are done.
        """
        if self.journal is not None:
            self.journal.tick(now)
        checked = 0
        self._turn = (self._turn + 1) % CLASSES  # so that no class of flows starves another
        for wheel in self._wheels[self._turn :] + self._wheels[: self._turn]:
            while checked < budget:
                bucket = wheel.due(now)
                if bucket is None:
                    break
                flow = bucket[-1]
                checked += 3 if flow.carried else 1
                if self.deadline(flow) > now or (self.refresh(flow) and self.deadline(flow) > now):
                    self._unschedule(flow)
                    self._schedule(flow)
                else:
                    self.forget(flow, now)
                    self.expired += 1
        for flows in self.compact:
            if checked < budget:
                checked += flows.expire(now, budget - checked)
        while checked < budget and self._done > max(self.bound // _DONE_SHARE, _DONE_LEAST):
            checked += 1
            victim = self._victim(self._wheels[DONE_CLASS], _DONE_KEPT, now)
            if victim is None:
                break
            self.forget(victim, now)
            self.expired += 1
        return checked

    def walk(self, *, compact: bool = True) -> Iterator[Flow]:
        """Iterate over all flows, a few at a time between packets; of ``compact`` ones over copies,
        which are in no index.

        Flows may be opened, moved and removed during the walk. A flow that exists throughout is
        yielded at least once, possibly twice, provided that the walk takes less than the shortest
        timeout and the flow does not return from a closed to an opening state. A yielded flow may
        be GONE by now. A thousand flows are copied at a time. Flows move to
        later buckets, and from unanswered to established to closed states; the walk has that order.
        """
        closed, done, half_open, single, datagrams, lasting = self._wheels
        self.held += 1
        try:
            for wheel in (half_open, single):
                yield from wheel.walk()
            for flows in self.compact if compact else ():
                yield from flows.walk()
            for wheel in (datagrams, lasting, done, closed):
                yield from wheel.walk()
        finally:
            self.held -= 1

    def _victim(self, wheel: TimerWheel, idle: float, now: float) -> Flow | None:
        """The flow of ``wheel`` to evict, or None: among the flows nearest to their timeout that
        were idle for at least ``idle`` seconds, the one whose client network has the most flows.

        Flows that were seen since they were scheduled are rescheduled and skipped, at most
        _MOST_MOVES of them, so that the cost is bounded.
        """
        victim = None
        most = -1
        moves = compared = 0
        while moves < _MOST_MOVES and compared < _COMPARED:
            second = wheel.first()
            if second is None:
                break
            flow = wheel.candidate(second)
            if flow is victim:  # all flows of the bucket were compared
                break
            if self.deadline(flow) >= second or self.refresh(flow):
                self._unschedule(flow)
                self._schedule(flow)
                moves += 1
                continue
            compared += 1
            if flow.seen + idle > now:  # the flows behind it were seen even later
                wheel.continue_at(flow.slot)
                break
            flows = self._networks[_network(flow.forward_key)]
            if flows > most:
                most = flows
                victim = flow
        if victim is not None:
            wheel.continue_at(victim.slot + 1)  # the last flow moves into the victim's slot
        return victim

    def deadline(self, flow: Flow) -> float:
        """When ``flow`` times out."""
        seconds = self._seconds[flow.state]
        if flow.state == UDP_ANSWERED and flow.translation.udp_reply:
            seconds = flow.translation.udp_reply
        return flow.seen + seconds

    def _schedule(self, flow: Flow) -> None:
        kind = CLASS_OF[flow.state]
        if kind == DONE_CLASS:
            self._done += 1
        wheel = self._wheels[kind]
        wheel.add(flow, self.deadline(flow))

    def _unschedule(self, flow: Flow) -> None:
        """Remove ``flow`` from its bucket; the bucket's last flow moves into its slot."""
        if CLASS_OF[flow.state] == DONE_CLASS:
            self._done -= 1
        bucket = flow.bucket
        last = bucket.pop()
        if last is not flow:
            bucket[flow.slot] = last
            last.slot = flow.slot

    def _tally(self, translation: Translation, group: int, change: int) -> None:
        """Add ``change`` to the number of flows in ``group``, of the table and of the backend."""
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
    """The index in ``_networks`` for the network (/24, /56) of the client in ``key``."""
    return hash(key[:3] if len(key) == 12 else key[:7]) & (_NETWORKS - 1)

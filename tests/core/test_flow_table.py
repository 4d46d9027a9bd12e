"""The flow table: bounded, found by either key, neither early nor late; against a slow model."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from packets import V4, backend, packed

from paraglider.core.affinity import Affinity
from paraglider.core.flow import FIRST_STATE, ICMP, TCP, UDP, Flow, FlowTimeouts
from paraglider.core.flow_index import FlowIndex
from paraglider.core.flow_states import (
    ACTIVE,
    CLASS_OF,
    CLIENT_DONE,
    CLOSED_CLASS,
    CLOSING,
    ESTABLISHED,
    FIN_CLIENT,
    GONE,
    GROUP_OF,
    LASTING_CLASS,
    OPENING,
    RESET,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
    UDP_ANSWERED,
    UDP_NEW,
    UDP_OPEN,
)
from paraglider.core.flow_table import SILENT, YOUNG, FlowTable
from paraglider.core.translation import Translation

SHORT = FlowTimeouts(syn=4, established=30, closed_rst=2, closed_fin=6.5, udp=5, icmp=2.25)
VIPS = (packed(V4.vip), packed(V4.other_vip))


def translations(affinity: Affinity | None = None) -> list[Translation]:
    """Between two VIPs and three backends; the first VIP's service keeps its clients."""
    backends = [backend(address) for address in V4.backends]
    return [
        Translation(vip, 80, each, affinity=affinity if vip == VIPS[0] else None)
        for vip in VIPS
        for each in backends
    ]


def key(vip: bytes, client: int, protocol: int) -> bytes:
    """The key of a client's flow; echo has its identifier for both ports."""
    address = bytes([192, 168, 0, 100 + client % 2])
    port = (40000 + client // 2).to_bytes(2, "big")
    return address + vip + port + (port if protocol == ICMP else b"\0\x50")


def opened(
    table: FlowTable, translation: Translation, client: int, protocol: int, now: float
) -> Flow | None:
    """A new flow, or None if there is no room."""
    if not table.make_room(protocol, now):
        return None
    forward = key(translation.vip, client, protocol)
    return table.open(protocol, forward, translation.reverse_key(forward), translation, now)


def content(index: FlowIndex) -> dict[bytes, Flow]:
    """All flows of an index."""
    return {key: index[key] for key in index}


def standing(table: FlowTable) -> list[Flow]:
    """Every flow that stands in a bucket of a wheel, as often as it does."""
    return [
        each for wheel in table._wheels for bucket in wheel._buckets.values() for each in bucket
    ]


@dataclass
class Known:
    """The model's row for a live flow."""

    flow: Flow
    forward: bytes
    reverse: bytes
    translation: Translation
    state: int
    seen: float

    @property
    def deadline(self) -> float:
        """When it times out."""
        return self.seen + SHORT.by_state[self.state]


class TableAndModel(RuleBasedStateMachine):
    """A table beside a list that is searched from end to end for every question."""

    @initialize(
        bound=st.integers(1, 12),
        start=st.sampled_from([0.0, 0.75, 1_000_000.5]),
        told=st.booleans(),
    )
    def begin(self, bound: int, start: float, told: bool) -> None:
        """A small table, on a machine that has been up for a second or for days."""
        self.now = start
        self.bound = bound
        self.affinity = Affinity(5, 3)
        self.translations = translations(self.affinity)
        self.table = FlowTable(SHORT, bound, start if told else 0.0)
        self.known: list[Known] = []
        self.evicted = self.expired = 0

    def ordered(self, number: int) -> Known:
        """A live flow."""
        return self.known[number % len(self.known)]

    @rule(
        protocol=st.sampled_from([TCP, UDP, ICMP]),
        client=st.integers(0, 7),
        which=st.integers(0, 5),
    )
    def open(self, protocol: int, client: int, which: int) -> None:
        """Open a flow; a full table evicts one, or refuses the new one."""
        translation = self.translations[which]
        forward = key(translation.vip, client, protocol)
        reverse = translation.reverse_key(forward)
        for each in self.known:
            if each.flow.protocol == protocol and (
                each.forward == forward or each.reverse == reverse
            ):
                return  # the balancer does not open what exists
        room = self.table.make_room(protocol, self.now)
        if len(self.known) == self.bound:
            self.expect_eviction(room)
        if room:
            made = self.table.open(protocol, forward, reverse, translation, self.now)
            state = FIRST_STATE[protocol]
            self.known.append(Known(made, forward, reverse, translation, state, self.now))

    def expect_eviction(self, room: bool) -> None:
        """A closed flow went; without any another that does not live; never one that does."""
        gone = [each for each in self.known if each.flow.state == GONE]
        assert len(gone) == room
        for each in gone:
            idle = self.now - each.seen
            assert CLASS_OF[each.state] != LASTING_CLASS
            assert each.state != UDP_OPEN or idle >= SILENT
            if CLASS_OF[each.state] != CLOSED_CLASS:
                assert not any(
                    CLASS_OF[other.state] == CLOSED_CLASS and other.deadline <= each.seen
                    for other in self.known
                    if other is not each
                )
            self.known.remove(each)
            self.evicted += 1
        openings = [e for e in self.known if GROUP_OF[e.state] == OPENING]
        assert room or len(openings) == 0 or any(e.seen > e.flow.seen for e in openings)

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 99))
    def see(self, number: int) -> None:
        """A packet of a live flow passes."""
        each = self.ordered(number)
        each.flow.seen = each.seen = self.now

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 99), step=st.integers(0, 20))
    def move(self, number: int, step: int) -> None:
        """A packet puts a live flow into another state of its protocol, or the same."""
        each = self.ordered(number)
        states = {
            TCP: (SYN_SENT, SYN_RECEIVED, ESTABLISHED, FIN_CLIENT, TIME_WAIT, RESET, CLIENT_DONE),
            UDP: (UDP_NEW, UDP_ANSWERED, UDP_OPEN),
            ICMP: (FIRST_STATE[ICMP],),
        }[each.flow.protocol]
        state = states[step % len(states)]
        self.table.move(each.flow, state, self.now)
        each.flow.seen = each.seen = self.now
        each.state = state

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 99))
    def forget(self, number: int) -> None:
        """A flow is ended by hand."""
        each = self.ordered(number)
        self.table.forget(each.flow, self.now)
        self.known.remove(each)

    @rule(quarters=st.integers(1, 30))
    def wait(self, quarters: int) -> None:
        """Time passes."""
        self.now += quarters / 4

    @rule(budget=st.sampled_from([0, 1, 2, 5, 2000]))
    def expire(self, budget: int) -> None:
        """Flows whose time is over go: none early, and with budget enough none late."""
        looked = self.table.expire(self.now, budget)
        assert looked <= budget
        for each in self.known[:]:
            if each.flow.state == GONE:
                assert each.deadline <= self.now, "expired early"
                self.known.remove(each)
                self.expired += 1
            elif looked < budget:
                assert each.deadline + 2 > self.now, "still there two seconds late"

    @invariant()
    def never_above_the_bound(self) -> None:
        """Count and bound hold."""
        assert len(self.table) == len(self.known) <= self.bound
        assert (self.table.evicted, self.table.expired) == (self.evicted, self.expired)

    @invariant()
    def both_keys_find_the_flow_and_its_backend(self) -> None:
        """Each live flow is found by either key, with its own backend; no other flow is found."""
        for protocol in FIRST_STATE:
            mine = [each for each in self.known if each.flow.protocol == protocol]
            assert content(self.table.forward[protocol]) == {e.forward: e.flow for e in mine}
            assert content(self.table.reverse[protocol]) == {e.reverse: e.flow for e in mine}
        for each in self.known:
            assert each.flow.translation is each.translation
            assert (each.flow.state, each.flow.seen) == (each.state, each.seen)

    @invariant()
    def backends_count_their_flows(self) -> None:
        """A backend's count is the number of live flows that go to it."""
        for translation in self.translations:
            found = translation.backend
            mine = [GROUP_OF[e.state] for e in self.known if e.translation.backend is found]
            counts = {group: mine.count(group) for group in (ACTIVE, OPENING, CLOSING)}
            assert counts == {ACTIVE: found.flows, OPENING: found.opening, CLOSING: found.closing}
        groups = [GROUP_OF[e.state] for e in self.known]
        table = self.table
        assert [groups.count(group) for group in (ACTIVE, OPENING, CLOSING)] == [
            table.active,
            table.opening,
            table.closing,
        ]

    @invariant()
    def each_flow_stands_in_one_bucket_of_its_class(self) -> None:
        """Buckets contain no ended flow; each live flow is once in the wheel of its class, at its
        slot, and not later than its deadline.
        """
        assert sorted(map(id, standing(self.table))) == sorted(id(e.flow) for e in self.known)
        for kind, wheel in enumerate(self.table._wheels):
            assert sorted(wheel._seconds) == sorted(wheel._buckets)
            for second, bucket in wheel._buckets.items():
                for slot, each in enumerate(bucket):
                    assert (each.bucket is bucket, each.slot) == (True, slot)
                    assert CLASS_OF[each.state] == kind
                    assert second <= each.seen + SHORT.by_state[each.state] + 1

    @invariant()
    def affinity_holds_the_clients_with_flows(self) -> None:
        """For a service with affinity, the held clients are those with live flows."""
        clients = {each.forward[:4] for each in self.known if each.translation.affinity is not None}
        addresses = {key(VIPS[0], number, TCP)[:4] for number in range(2)}
        assert {a for a in addresses if self.affinity.find(a, inf) is not None} == clients


TestTableAndModel = TableAndModel.TestCase
TestTableAndModel.settings = settings(max_examples=150, stateful_step_count=60)


def filled(bound: int, now: float = 0.0) -> tuple[FlowTable, list[Flow]]:
    """A table full of half-open flows, opened a second apart."""
    table = FlowTable(SHORT, bound, now)
    flows = [opened(table, translations()[0], client, TCP, now + client) for client in range(bound)]
    return table, [each for each in flows if each is not None]


def test_a_closed_flow_makes_room_first() -> None:
    """Then half-open ones, the oldest first; then single datagrams; a live one never."""
    table = FlowTable(FlowTimeouts(), 5)
    translation = translations()[0]
    states = (ESTABLISHED, SYN_SENT, SYN_SENT, UDP_NEW, TIME_WAIT)
    flows = []
    for client, state in enumerate(states):
        protocol = UDP if state == UDP_NEW else TCP
        made = opened(table, translation, client, protocol, client)
        assert made is not None
        table.move(made, state, client)
        flows.append(made)
    order = []
    for client in range(10, 15):
        now = 100.0 + client
        made = opened(table, translation, client, TCP, now)
        if made is not None:
            table.move(made, ESTABLISHED, now)
        order.append([n for n, each in enumerate(flows) if each.state == GONE])
    assert order == [[4], [1, 4], [1, 2, 4], [1, 2, 3, 4], [1, 2, 3, 4]]


@pytest.mark.parametrize(("newcomer", "survives"), [(TCP, UDP), (UDP, TCP)])
def test_a_flood_takes_the_place_of_its_own_kind(newcomer: int, survives: int) -> None:
    """If all flows are young, datagrams evict no handshake, and handshakes no datagram."""
    table = FlowTable(FlowTimeouts(), 20)
    translation = translations()[0]
    for client in range(10):
        for protocol in (TCP, UDP):
            assert opened(table, translation, client, protocol, 0.0) is not None
    for client in range(10, 200):
        assert opened(table, translation, client, newcomer, YOUNG - 1) is not None
    assert len(table.forward[survives]) == 10


def test_the_youngest_handshake_goes_last() -> None:
    """A flood within a second goes round: each opening lasts as long as there are others."""
    table = FlowTable(FlowTimeouts(), 100)
    translation = translations()[0]
    flows = [opened(table, translation, client, TCP, 50.2) for client in range(400)]
    assert [each.state for each in flows if each is not None][-100:] == [SYN_SENT] * 100


def test_a_network_with_many_flows_makes_room_before_others() -> None:
    """Half-open flows of one network go, and a client elsewhere keeps its own."""
    table = FlowTable(FlowTimeouts(), 50)
    translation = translations()[0]

    def from_network(network: int, number: int) -> Flow:
        forward = bytes([10, 0, network, 7]) + translation.vip + number.to_bytes(2, "big") + b"\0P"
        assert table.make_room(TCP, 1.0)
        return table.open(TCP, forward, translation.reverse_key(forward), translation, 1.0)

    lone = from_network(1, 0)
    for number in range(1000):
        from_network(2, number)
    assert lone.state == SYN_SENT


def test_flows_that_are_half_closed_on_one_side_are_kept_while_there_are_few() -> None:
    """Under dsr their end is not seen: above a share of the table they end early."""
    table = FlowTable(FlowTimeouts(), 2000)
    translation = translations()[0]
    for client in range(1500):
        made = opened(table, translation, client, TCP, 0.0)
        assert made is not None
        table.move(made, CLIENT_DONE, 0.0)
    table.expire(59.0)
    assert len(table) == 1500
    table.expire(61.0)
    assert len(table) == 1000
    table.expire(7000.0)
    assert len(table) == 1000
    table.expire(7500.0)
    assert len(table) == 0


def test_a_flow_that_was_seen_makes_no_room_before_one_that_was_not() -> None:
    """A packet counts at once, not only at the next check of the wheel."""
    table, flows = filled(4)
    for each in flows[:2]:
        each.seen = 10.0
    for gone in (2, 3):  # which were opened later, and not seen since
        assert opened(table, translations()[0], 10 + gone, TCP, 10.0) is not None
        assert flows[gone].state == GONE
    assert [each.state for each in flows[:2]] == [SYN_SENT, SYN_SENT]


def test_room_is_made_at_a_bounded_cost() -> None:
    """If all flows were seen since, a few are rescheduled per call, until one is found."""
    table, flows = filled(100)
    for each in flows:
        each.seen = 200.0
    for _ in range(100):
        buckets = [each.bucket for each in flows]
        room = table.make_room(TCP, 200.0)
        moved = sum(e.bucket is not before for e, before in zip(flows, buckets, strict=True))
        assert moved <= 16
        if room:
            break
    assert len(table) == 99


def test_lasting_flows_make_no_room_before_they_sleep() -> None:
    """A table full of them refuses the new flow; after two hours of silence one goes."""
    table = FlowTable(FlowTimeouts(), 3)
    flows = []
    for client, state in enumerate((ESTABLISHED, FIN_CLIENT, ESTABLISHED)):
        made = opened(table, translations()[0], client, TCP, 3.0)
        assert made is not None
        table.move(made, state, 3.0)
        flows.append(made)
    for now in (3.0, 7100.0):
        assert not table.make_room(TCP, now)
        assert opened(table, translations()[0], 9, UDP, now) is None
    assert (len(table), table.evicted) == (3, 0)
    flows[0].seen = 7000.0
    assert table.make_room(UDP, 7300.0)
    assert flows[0].state == ESTABLISHED
    assert table.evicted == 1


def test_expiry_keeps_to_its_budget_and_goes_on_where_it_stopped() -> None:
    """A thousand flows that end at once are removed in portions; a result below the budget means
    done.
    """
    table = FlowTable(SHORT, 1000)
    translation = translations()[0]
    for client in range(1000):
        opened(table, translation, client, TCP, 0.0)
    assert [table.expire(5.0, 300) for _ in range(5)] == [300, 300, 300, 100, 0]
    assert (len(table), table.expired) == (0, 1000)


def test_expiry_after_a_long_sleep() -> None:
    """Days without a packet cost no more than the flows that end in them."""
    table, _ = filled(3)
    assert table.expire(1e9) == 3
    assert len(table) == 0
    opened(table, translations()[0], 0, TCP, 1e9)
    assert table.expire(1e9 + 3.9) == 0
    assert table.expire(1e9 + 5) == 1


def test_nothing_is_kept_of_flows_that_are_gone() -> None:
    """After many flows have come and gone, tables, wheels and heaps are as empty as at first."""
    table = FlowTable(SHORT, 500)
    translation, now = translations()[0], 0.0
    for client in range(2000):
        now += 0.1
        made = opened(table, translation, client, (TCP, UDP, ICMP)[client % 3], now)
        assert made is not None
        if made.protocol == TCP:
            table.move(made, (ESTABLISHED, TIME_WAIT)[client % 2], now)
        table.expire(now)
    table.expire(now + 100)
    assert len(table) == 0
    assert not any(table.forward.values())
    assert not any(table.reverse.values())
    assert [(wheel._buckets, wheel._seconds) for wheel in table._wheels] == [({}, [])] * 6


def test_a_backend_remembers_how_often_it_was_picked() -> None:
    """``conns`` only grows; the other counters follow the table."""
    table, flows = filled(2)
    target = flows[0].translation.backend
    table.forget(flows[0], 2.0)
    assert (flows[0].state, target.opening, target.conns) == (GONE, 0, 1)

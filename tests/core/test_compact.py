"""Compact flows are the table's flows: nothing but their memory tells them from others."""

from __future__ import annotations

from dataclasses import dataclass, field
from mmap import PAGESIZE

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import SHORT, World, key, memory
from packets import V4, V6

from paraglider.core.compact import COMPACT_STATES, COST, CompactFlows, allow_compact
from paraglider.core.flow import TCP, UDP, Flow
from paraglider.core.flow_states import ESTABLISHED, FIN_CLIENT, GONE, TIME_WAIT
from paraglider.core.flow_table import ASLEEP, FlowTable, FlowTimeouts
from paraglider.core.journal import HEADER, RECORD, Journal
from paraglider.core.restore import restore

BOUND = 40


@dataclass
class Entries:
    """A carrier, which has the time of the last packet of each flow; ``lost`` compact flows."""

    seen: dict[bytes, float] = field(default_factory=dict)
    lost: int = 0

    def refresh(self, flow: Flow) -> bool:
        """See ``FlowCarrier``."""
        before, flow.seen = flow.seen, max(flow.seen, self.seen[flow.forward_key])
        return flow.seen > before

    def expanded(self, flow: Flow) -> None:
        """See ``FlowCarrier``."""
        flow.carried = 1
        self.refresh(flow)

    def restore(self, flow: Flow) -> None:
        """See ``FlowCarrier``."""

    def moved(self, flow: Flow) -> None:
        """See ``FlowCarrier``."""

    def remove(self, flow: Flow) -> None:
        """See ``FlowCarrier``."""

    def lose_compact(self) -> None:
        """See ``FlowCarrier``."""
        self.lost += 1

    def fetch(self, protocol: int, key: bytes, now: float) -> bool:
        """See ``FlowCarrier``."""
        return False


class Side:
    """A table with a carrier and a journal; its flows may become compact."""

    def __init__(self, timeouts: FlowTimeouts = SHORT, bound: int = BOUND) -> None:
        self.world = World()
        self.memory = memory(bound)
        self.entries = Entries()
        self.table = FlowTable(timeouts, bound)
        self.table.carrier = self.entries
        restore(self.table, Journal(self.memory), self.world.translations, 0.0)
        allow_compact(self.table)

    def of(self, protocol: int) -> CompactFlows:
        """The compact flows of ``protocol``."""
        (found,) = (each for each in self.table.compact if each.protocol == protocol)
        assert isinstance(found, CompactFlows)
        return found

    def open(self, client: int, protocol: int = TCP, now: float = 0.0) -> Flow | None:
        """A carried flow in the state in which flows become compact; None if there is one."""
        family = (V4, V6)[client % 2]
        translation = self.world.translation(family, client % 3)
        forward = key(family, client)
        back = translation.reverse_key(forward)
        known = self.table.forward[protocol].get(forward), self.table.reverse[protocol].get(back)
        if any(known) or not self.table.make_room(protocol, now):
            return None
        flow = self.table.open(protocol, forward, back, translation, now)
        flow.carried = 1
        self.entries.seen[forward] = now
        self.table.move(flow, COMPACT_STATES[protocol], now)
        return flow

    @property
    def counted(self) -> tuple[object, ...]:
        """All that counts flows."""
        table = self.table
        backends = [b for s in self.world.services for b in s.pool.backends]
        return (
            (len(table), table.active, table.opening, table.closing, table.expired, table.evicted),
            [(b.flows, b.opening, b.inactive, b.conns) for b in backends],
        )

    @property
    def keys(self) -> set[tuple[int, bytes, int]]:
        """The flows by protocol, key and state, compact or not."""
        return {(f.protocol, f.forward_key, f.state) for f in self.table.walk()}

    def recorded(self) -> set[tuple[bytes, int]]:
        """The flows of the journal."""
        return {(content, state) for _, state, _, content in Journal(self.memory).read()}


clients = st.integers(0, 9)
protocols = st.sampled_from([TCP, UDP])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("open"), clients, protocols),
        st.tuples(st.just("compact"), clients, protocols),
        st.tuples(st.just("packet"), clients, protocols),
        st.tuples(st.just("seen"), clients, protocols),
        st.tuples(st.just("end"), clients, protocols),
        st.tuples(st.just("close"), clients, protocols),
        st.tuples(st.just("wait"), st.integers(1, 12), protocols),
    ),
    max_size=60,
)


@given(steps)
def test_a_table_with_compact_flows_is_like_one_without(
    does: list[tuple[str, int, int]],
) -> None:
    """Whatever happens: the same flows, counts and records, and found by either key."""
    one, other = Side(), Side()
    now = 0.0
    for what, number, protocol in does:
        forward = key((V4, V6)[number % 2], number)
        if what == "wait":
            now += number
        for side in (one, other):
            flows = side.table.forward[protocol]
            if what == "open":
                side.open(number, protocol, now)
            elif what == "wait":
                side.table.expire(now)
            elif what == "seen" and forward in side.entries.seen:
                side.entries.seen[forward] = now
            elif what == "compact" and side is one:
                flow = flows.get(forward)
                compact = side.of(protocol)
                assert flow is None or compact.add(flow) == (flow.state == GONE)
            elif what in ("packet", "end", "close"):
                flow = flows.get(forward)
                if flow is None:
                    continue
                assert side.table.reverse[protocol].get(flow.reverse_key) is flow
                if what == "packet":
                    flow.seen = side.entries.seen[forward] = now
                elif what == "end":
                    side.table.forget(flow, now)
                elif protocol == TCP:
                    side.table.move(flow, TIME_WAIT, now)
        assert one.counted == other.counted
        assert one.keys == other.keys
        assert one.recorded() == other.recorded()


def test_a_compact_flow_is_no_object() -> None:
    """Until it is looked up by either key; then it is as before, but for the object."""
    side = Side()
    for reverse in (False, True):
        flow = side.open(4)
        assert flow is not None
        forward, back, record = flow.forward_key, flow.reverse_key, flow.record
        assert side.of(TCP).add(flow)
        assert (flow.state, side.of(TCP).index.count) == (GONE, 1)
        assert not list(side.table.forward[TCP].values())
        assert not list(side.table.reverse[TCP].values())
        assert side.of(TCP).translation_of(forward) is flow.translation
        side.entries.seen[forward] = 7.0
        found = (
            side.table.reverse[TCP].get(back) if reverse else side.table.forward[TCP].get(forward)
        )
        assert found is not None
        assert found is not flow
        assert (found.state, found.seen, found.record) == (ESTABLISHED, 7.0, record)
        assert (found.forward_key, found.reverse_key) == (forward, back)
        assert found.translation is flow.translation
        assert side.of(TCP).index.count == 0
        side.table.forget(found, 8.0)


def test_only_flows_of_the_state_with_a_record_become_compact() -> None:
    """And none while that is held."""
    side = Side()
    flow = side.open(1)
    assert flow is not None
    side.table.held = 1
    assert not side.of(TCP).add(flow)
    side.table.held = 0
    record, flow.record = flow.record, 0
    assert not side.of(TCP).add(flow)
    flow.record = record
    at = HEADER + (record - 1) * RECORD + 4  # its identity, as of an earlier version
    side.memory[at] ^= 1
    assert not side.of(TCP).add(flow)
    side.memory[at] ^= 1
    side.table.move(flow, FIN_CLIENT, 1.0)
    assert not side.of(TCP).add(flow)
    side.table.move(flow, ESTABLISHED, 1.0)
    assert side.of(TCP).add(flow)


def test_a_step_of_expiry_is_bounded() -> None:
    """A compact flow counts as COST, and the rest is done by the next steps."""
    side = Side()
    for client in range(30):
        flow = side.open(client)
        assert flow is not None
        assert side.of(TCP).add(flow)
    late = SHORT.by_state[ESTABLISHED] + 2.0
    assert side.table.expire(late, 10 * COST) == 10 * COST
    assert (len(side.table), side.table.expired) == (20, 10)
    side.table.expire(late, 1000)
    assert (len(side.table), side.of(TCP).index.count) == (0, 0)


def test_an_idle_compact_flow_is_evicted_a_live_one_is_not() -> None:
    """A full table evicts established flows after two hours of silence, as the carrier has it."""
    now = ASLEEP + 100.0
    for idle in (False, True):
        side = Side(FlowTimeouts(), bound=2)
        for client in (2, 4):
            flow = side.open(client)
            assert flow is not None
            assert side.of(TCP).add(flow)
            side.entries.seen[key(V4, client)] = 10.0 if idle and client == 2 else now - 50.0
        assert (side.open(8, now=now) is not None) == idle
        left = {key(V4, 8 if idle else 2), key(V4, 4)}
        assert {forward for _, forward, _ in side.keys} == left


def test_no_flow_becomes_compact_during_a_walk() -> None:
    """So that each that exists throughout is met."""
    side = Side()
    flows = [side.open(client) for client in range(6)]
    for flow in flows[:3]:
        assert flow is not None
        assert side.of(TCP).add(flow)
    walk = side.table.walk()
    met = {next(walk).forward_key}
    assert flows[3] is not None
    assert not side.of(TCP).add(flows[3])
    met |= {flow.forward_key for flow in walk}
    assert met == {forward for _, forward, _ in side.keys}
    assert side.of(TCP).add(flows[3])


@pytest.mark.parametrize(
    ("at", "damage"),
    [(0, b"\0"), (0, b"\x06"), (4, b"\xff" * 8), (16, b"\xff" * 4)],
    ids=["ended", "state", "translation", "VIP"],
)
def test_a_flow_with_a_damaged_record_is_lost(at: int, damage: bytes) -> None:
    """It is counted no longer, and the carrier is told; the others stay."""
    side = Side()
    records = []
    for client in (2, 4):
        flow = side.open(client)
        assert flow is not None
        records.append(flow.record)
        assert side.of(TCP).add(flow)
    place = HEADER + (records[0] - 1) * RECORD + at
    side.memory[place : place + len(damage)] = damage
    assert side.of(TCP).step(10) == 2
    assert (len(side.table), side.table.active, side.entries.lost) == (1, 1, 1)
    assert {forward for _, forward, _ in side.keys} == {key(V4, 4)}


def test_a_record_that_became_another_flows_is_lost() -> None:
    """A damaged record with the key of a flow that is in the table: that one stays as it is."""
    for other_is_compact in (False, True):
        side = Side()
        flow, other = side.open(2), side.open(8)
        assert flow is not None
        assert other is not None
        records = flow.record, other.record
        assert side.of(TCP).add(flow)
        if other_is_compact:
            assert side.of(TCP).add(other)
        at, of = (HEADER + (record - 1) * RECORD for record in records)
        side.memory[at : at + RECORD] = side.memory[of : of + RECORD]
        side.of(TCP).step(10)
        assert (len(side.table), side.table.active, side.entries.lost) == (1, 1, 1)
        found = side.table.forward[TCP].get(key(V4, 8))
        assert found is not None
        side.table.forget(found, 1.0)
        assert (len(side.table), side.keys) == (0, set())


def test_a_record_of_a_compact_flow_is_no_other_flows() -> None:
    """The list of free records was damaged: the second flow with a record stays as it is."""
    side = Side()
    flow, other = side.open(2), side.open(8)
    assert flow is not None
    assert other is not None
    assert side.of(TCP).add(flow)
    other.record = 1
    at = HEADER + RECORD
    side.memory[HEADER : HEADER + RECORD] = side.memory[at : at + RECORD]
    assert not side.of(TCP).add(other)


def test_numbers_of_translations_are_used_again() -> None:
    """When no compact flow has the translation any more."""
    side = Side()
    compact = side.of(TCP)
    records = []
    for client in (2, 4, 8):  # the first and the last to one backend
        flow = side.open(client)
        assert flow is not None
        records.append(flow.record)
        assert compact.add(flow)
    numbers = [compact.index.number(record) for record in records]
    assert numbers[0] == numbers[2] != numbers[1]
    assert side.table.forward[TCP].get(key(V4, 4)) is not None
    other = side.open(6)
    assert other is not None
    assert compact.add(other)
    assert compact.index.number(other.record or records[-1] + 1) == numbers[1]


def test_memory_is_provided_in_pieces() -> None:
    """Each is bounded; in all the groups, and 10 bytes for each record so far. Flows are found
    between the pieces as ever.
    """
    records = 100_000
    journal = Journal(memory(records))
    translation = World().translation(V4, 0)
    for client in range(20_000):
        journal.write(translation.identity, key(V4, client), COMPACT_STATES[TCP])
    needed = 4 * 65536 + 10 * 20_001
    for most in (PAGESIZE, 3 * PAGESIZE + 1, 1 << 30):
        flows, pieces = CompactFlows(FlowTable(SHORT, records), journal, TCP), 1
        while flows.prepare(most):
            pieces += 1
        whole = most // PAGESIZE * PAGESIZE
        assert needed / whole <= pieces <= needed / whole + 5
        assert not flows.prepare(most)

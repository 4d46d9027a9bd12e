"""Flows of a journal that are restored when they are needed: none is missed, lost or made twice."""

from __future__ import annotations

import sys
from array import array
from pathlib import Path
from random import Random
from runpy import run_path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import SHORT, STATES, World, key, known, memory, opened
from packets import MANY, V4, V6, Family, packed

import paraglider
from paraglider.core.compact_index import words
from paraglider.core.flow import ICMP, ICMP6, TCP, UDP, Flow
from paraglider.core.flow_states import ESTABLISHED, GONE, RESET
from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import Journal
from paraglider.core.restore import BEAT, Restored, restore
from paraglider.core.unread import AT_ONCE, IdentitySet, Unread, begin, sort_records

#: flows of each worker's journal here, and places in its table
FLOWS, BOUND = 60, 64
V6_NETWORK = bytes.fromhex("20010db800000000")


def journal_of(world: World, flows: int = FLOWS, bound: int = BOUND) -> tuple[bytearray, FlowTable]:
    """A journal of a worker with ``flows`` of both families and all protocols, and its table."""
    buffer = memory(bound)
    table = FlowTable(SHORT, bound)
    restore(table, Journal(buffer), world.translations, 0.0)
    for number in range(flows):
        family = (V4, V6)[number % 2]
        protocol = (TCP, UDP, TCP, ICMP)[number // 2 % 4]
        flow = opened(table, world.translation(family, number % 3), protocol, number, 1.0)
        states = STATES[ICMP if flow.protocol == ICMP6 else flow.protocol]
        table.move(flow, states[number % len(states)], 1.0)
    return buffer, table


def unread_in(
    buffer: bytearray, now: float = 1.0, bound: int = BOUND, *, keeps: bool = False
) -> tuple[Unread, FlowTable]:
    """The flows of a journal, and the table that fetches them; ``keeps``: with affinity."""
    table, journal = FlowTable(SHORT, bound), Journal(buffer)
    table.journal = journal
    unread = Unread(table, journal, World(keeps=keeps).translations, now)
    journal.tick(now)
    unread.attach()
    return unread, table


def everything(table: FlowTable) -> list[Flow]:
    """The flows that are in the table."""
    return [flow for flows in table.forward.values() for flow in flows.values()]


@pytest.mark.parametrize("keeps", [False, True], ids=["flow", "client"])
@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_it_is_what_restoring_at_once_makes(at_a_time: int, keeps: bool) -> None:
    """In steps of any size: the same flows, states and counts, and journal."""
    buffer, before = journal_of(World())
    unread, table = unread_in(buffer, keeps=keeps)
    assert (unread.left, table.reserved, len(table), everything(table)) == (FLOWS, FLOWS, FLOWS, [])
    steps = 0
    while table.unread is not None:
        left = unread.left  # the last group may be smaller than a step
        assert unread.step(at_a_time) >= min(at_a_time, left)
        steps += 1
        assert (len(table), unread.left) == (FLOWS, table.reserved)
    assert steps <= -(-FLOWS // at_a_time)
    assert known(table) == known(before)
    assert (table.active, table.opening, table.closing) == (
        before.active,
        before.opening,
        before.closing,
    )
    assert unread.restored == Restored(kept=FLOWS)
    again = FlowTable(SHORT, BOUND)
    restore(again, Journal(buffer), World().translations, 1.0)
    assert known(again) == known(before)


@pytest.mark.parametrize("keeps", [False, True], ids=["flow", "client"])
def test_every_packet_finds_its_flow(keeps: bool) -> None:
    """By the key of either direction, each in a table of which no flow was read before."""
    buffer, before = journal_of(World())
    wanted = everything(before)
    for direction in ("forward", "reverse"):
        for flow in wanted:
            _, table = unread_in(bytearray(buffer), keeps=keeps)
            indexes = getattr(table, direction)
            found = indexes[flow.protocol].get(getattr(flow, f"{direction}_key"))
            assert found is not None
            assert (found.forward_key, found.state) == (flow.forward_key, flow.state)
            assert found.translation.backend.name == flow.translation.backend.name
            assert table.forward[flow.protocol].get(flow.forward_key) is found
            assert table.reverse[flow.protocol].get(flow.reverse_key) is found
            assert len(table) == FLOWS


def test_free_records_are_used_again() -> None:
    """Each once, the lowest first, while flows are unread: the journal does not grow."""
    buffer, before = journal_of(World())
    gone = everything(before)[::3]
    free = sorted(flow.record for flow in gone if flow.record < FLOWS)
    for flow in gone:
        before.forget(flow, 1.0)
    unread, table = unread_in(buffer)
    assert unread.left == FLOWS - len(gone)
    translation = World().translation(V6, 0)
    records = [opened(table, translation, UDP, 100 + n, 1.0).record for n in range(len(free))]
    assert records == free
    unread.finish()
    assert len(known(table)) == FLOWS - len(gone) + len(free)


def test_clients_are_told_apart_by_the_whole_address() -> None:
    """Of flows from one port of many IPv6 addresses of a network, a packet restores few."""
    world, flows = World(), 1000
    buffer, table = memory(flows), FlowTable(SHORT, flows)
    restore(table, Journal(buffer), world.translations, 0.0)
    translation = world.translation(V6, 0)
    keys = [V6_NETWORK + n.to_bytes(8, "big") + key(V6, 0)[16:] for n in range(flows)]
    for each in keys:
        table.open(TCP, each, translation.reverse_key(each), translation, 1.0)
    _, table = unread_in(buffer, bound=flows)
    assert table.forward[TCP].get(keys[7]) is not None
    assert 1 <= len(everything(table)) < 100


def test_a_packet_restores_few_flows() -> None:
    """Of many flows those of the client's address and port, and a small group of others."""
    world = World()
    buffer, _ = journal_of(world, 4000, 4000)
    _, table = unread_in(buffer, bound=4000)
    assert table.forward[TCP].get(key(V4, 0)) is not None
    assert 1 <= len(everything(table)) < 100


def test_a_client_that_keeps_its_backend_is_restored_whole() -> None:
    """Before its new flow is given one: with all its flows, so that it is bound."""
    buffer, world = memory(BOUND), World()
    table = FlowTable(SHORT, BOUND)
    restore(table, Journal(buffer), world.translations, 0.0)
    for number in range(10):
        opened(table, world.translation(V4, 1), TCP, number, 1.0)
        opened(table, world.translation(V6, number % 3), TCP, number, 1.0)
    restarted = World()
    journal, table = Journal(buffer), FlowTable(SHORT, BOUND)
    table.journal = journal
    Unread(table, journal, restarted.translations, 1.0).attach()
    client, new = packed(V4.client), key(V4, 500)
    assert restarted.affinity.find(client, 1.0) is None
    assert table.forward[TCP].get(new) is None
    found = restarted.affinity.find(client, 1.0)
    assert found is restarted.translation(V4, 1).backend
    assert {key(V4, number) for number in range(10)} <= {f.forward_key for f in everything(table)}


def test_new_flows_take_no_place_of_unread_ones() -> None:
    """The table is full of flows that are not read: a new one evicts none of them."""
    buffer, before = journal_of(World(), BOUND)
    unread, table = unread_in(buffer)
    assert not table.make_room(TCP, 1.0)
    unread.finish()
    assert known(table) == known(before)


def test_new_flows_while_others_are_unread() -> None:
    """They have records of their own; all are there after another restart, half-way."""
    buffer, before = journal_of(World(), 40)
    unread, table = unread_in(buffer)
    unread.step(10)
    world = World()
    for number in range(100, 110):
        assert table.make_room(TCP, 1.0)
        opened(table, world.translation(V4, number % 3), TCP, number, 1.0)
    after, again = unread_in(buffer)
    after.finish()
    unread.finish()
    assert known(again) == known(table)
    assert known(before) < known(again)
    assert len(again) == 50


def test_what_is_left_out_is_counted() -> None:
    """Flows of a backend that is gone, and of states that are over."""
    buffer, _ = journal_of(World(), 0)
    table = FlowTable(SHORT, BOUND)
    world = World()
    restore(table, Journal(buffer), world.translations, 0.0)
    for number in range(12):
        flow = opened(table, world.translation(V4, number % 3), TCP, number, 0.0)
        table.move(flow, (ESTABLISHED, RESET)[number % 2], 0.0)
    journal, table = Journal(buffer), FlowTable(SHORT, BOUND)
    table.journal = journal
    unread = Unread(table, journal, World(backends=2).translations, 8.0)
    unread.attach()
    unread.finish()
    assert unread.restored == Restored(kept=4, unknown=4, expired=4)
    assert (len(table), table.reserved, len(everything(table))) == (4, 0, 4)
    table = FlowTable(SHORT, BOUND)
    assert restore(table, Journal(buffer), World().translations, 8.0) == Restored(kept=4)


def test_a_file_that_is_damaged_meanwhile() -> None:
    """Records that are gone or wrong make no flow; the others are restored."""
    buffer, _ = journal_of(World())
    unread, table = unread_in(buffer)
    for number, byte in ((1, 0), (2, 255)):
        buffer[64 + 48 * (number - 1)] = byte
    unread.finish()
    assert (len(table), table.reserved, table.unread) == (FLOWS - 2, 0, None)


def test_when_flows_are_restored_at_once() -> None:
    """If they are few, have no places, or the journal is not complete."""
    world = World()
    buffer, _ = journal_of(world, AT_ONCE + 1, AT_ONCE + 1)
    few, _ = journal_of(world)

    def begun(content: bytearray, **how: int) -> bool:
        table = FlowTable(SHORT, how.get("bound", AT_ONCE + 1))
        journal = Journal(bytearray(content))
        journal.complete = how.get("complete", 1) == 1
        found = begin(table, journal, world.translations, 1.0)
        assert (found is None) == (table.unread is None)
        return found is not None

    assert begun(buffer)
    assert not begun(few)
    assert not begun(buffer, bound=AT_ONCE)
    assert not begun(buffer, complete=0)


STEP = st.tuples(
    st.sampled_from(["packet", "reply", "new", "forget", "step", "restart"]),
    st.sampled_from([TCP, UDP]),
    st.sampled_from([V4, V6]),
    st.integers(0, 11),
)


@given(st.lists(STEP, max_size=60), st.integers(0, 1 << 16), st.booleans())
def test_a_worker_that_restores_beside_one_that_has_done_so(
    steps: list[tuple[str, int, Family, int]], seed: int, keeps: bool
) -> None:
    """Whatever happens meanwhile, both have the same flows, which never changed their backends."""
    random = Random(seed)
    world = World()
    buffer, plain = memory(BOUND), FlowTable(SHORT, BOUND)
    restore(plain, Journal(buffer), world.translations, 0.0)
    for number in range(24):
        family, protocol = random.choice((V4, V6)), random.choice((TCP, UDP))
        if plain.forward[protocol].get(key(family, number)) is None:
            flow = opened(plain, world.translation(family, number % 3), protocol, number, 0.0)
            plain.move(flow, random.choice(STATES[protocol]), 0.0)
    unread, table = unread_in(buffer, 0.0, keeps=keeps)
    plain.journal = None  # the other one's by now
    for what, protocol, family, number in steps:
        both = plain, table
        forward = key(family, number)
        if what in ("packet", "new", "forget"):
            found = [each.forward[protocol].get(forward) for each in both]
        elif what == "reply":
            reverse = world.translation(family, number % 3).reverse_key(forward)
            found = [each.reverse[protocol].get(reverse) for each in both]
        elif what == "step":
            unread.step(1 + number)
            continue
        else:
            unread, table = unread_in(buffer, 0.0, keeps=keeps)
            continue
        states = {None if flow is None else flow.state for flow in found}
        assert len(states) == 1
        for each, flow in zip(both, found, strict=True):
            if flow is not None and what == "forget":
                each.forget(flow, 0.0)
                assert flow.state == GONE
            elif flow is not None:
                flow.seen = 0.0
            elif what == "new":
                translation = world.translation(family, number % 3)
                if each.make_room(protocol, 0.0):
                    opened(each, translation, protocol, number, 0.0)
    unread.finish()
    assert known(table) == known(plain)


def test_records_are_sorted_in_pieces() -> None:
    """A sign of life before each, of BEAT records; none between two pieces is lost or freed."""
    world, flows = World(), 2 * BEAT + 3
    buffer = memory(flows)
    journal, translation = Journal(buffer), world.translation(V4, 0)
    client, rest = packed(V4.client)[:2], packed(V4.vip) + b"\x10\x00\0\x50"
    keys = [client + n.to_bytes(2, "big") + rest for n in range(flows)]
    for each in keys:
        journal.write(translation.identity, each, ESTABLISHED)
    edges = {1, 2, BEAT + 1, BEAT + 3, BEAT + 4, flows - 1}
    for number in edges:
        journal.erase(number)
    beats: list[None] = []
    table, journal = FlowTable(SHORT, flows), Journal(buffer)
    table.journal = journal
    unread = Unread(table, journal, world.translations, 1.0, lambda: beats.append(None))
    unread.attach()
    assert len(beats) == 3
    assert unread.left == flows - len(edges)
    assert table.forward[TCP].get(keys[BEAT + 1]) is not None
    unread.finish()
    found = {flow.forward_key for flow in everything(table)}
    assert found == {each for n, each in enumerate(keys, 1) if n not in edges}
    new = [journal.write(translation.identity, keys[0], ESTABLISHED) for _ in edges]
    assert new == sorted(edges)


TWIN = "sort_records", "IdentitySet", "Journal"


@pytest.fixture(scope="module")
def interpreted() -> tuple[Any, ...]:
    """TWIN from the sources, loaded beside the compiled modules."""
    core = Path(paraglider.__file__).parent / "core"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "paraglider.core._unread", None)  # cannot be imported
        found = run_path(str(core / "unread.py")) | run_path(str(core / "journal.py"))
    return tuple(found[name] for name in TWIN)


RECORD = st.tuples(
    st.integers(0, 3),  # of the identities
    st.binary(min_size=36, max_size=36) | st.integers(0, 5).map(lambda n: bytes([n]) * 36),
    st.booleans(),
)
LONG = [bytes([n]) * 7 + bytes([n % 2]) for n in range(1, 20)]  # some share a slot


@MANY
@given(
    st.lists(RECORD, min_size=1, max_size=40),
    st.integers(0, len(LONG)),
    st.lists(st.integers(0, (1 << 64) - 1), min_size=5, max_size=5),
    st.booleans(),
    st.integers(0, 6),
    st.integers(1, 40),
)
def test_the_compiled_twin_sorts_alike(
    interpreted: tuple[Any, ...],
    records: list[tuple[int, bytes, bool]],
    long: int,
    factors: list[int],
    by_client: bool,
    bits: int,
    piece: int,
) -> None:
    """Whatever the records and the factors, in one piece or several: the same groups in the same
    order, and the same free records.
    """
    buffer = memory(len(records))
    journal = Journal(buffer)
    for which, content, _ in records:
        journal.write(LONG[which], content, ESTABLISHED)
    for number, (_, _, gone) in enumerate(records, 1):
        if gone:
            journal.erase(number)
    results = []
    for sort, identity_set, journal_class in ((sort_records, IdentitySet, Journal), interpreted):
        content = bytearray(buffer)
        journal, identities = journal_class(content), identity_set(LONG[:long])
        first, after = words(1 << bits), words(len(records) + 1)
        options = array("Q", factors), by_client, min(64 - bits, 63)
        left = [
            sort(journal, first, after, identities, *options, end, max(end - piece, 0) + 1)
            for end in range(len(records), 0, -piece)
        ]
        free = journal.write(LONG[0], bytes(12), ESTABLISHED)
        results.append((left, list(first), list(after), bytes(content), free))
    assert results[0] == results[1]
    assert sum(results[0][0]) == sum(not gone for _, _, gone in records)

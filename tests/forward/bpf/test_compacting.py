"""Flows that BPF carries become compact after a while, and nobody notices."""

from __future__ import annotations

import sys
from mmap import PAGESIZE

import pytest
from bpf_world import (
    MemoryMap,
    MemoryRing,
    Program,
    Worker,
    client_key,
    entries,
    memory_maps,
    web,
    worker,
)
from journals import memory
from packets import V4, backend

from paraglider.core.flow import TCP, UDP
from paraglider.core.flow_states import ESTABLISHED, UDP_OPEN
from paraglider.core.journal import Journal
from paraglider.core.pool import Event
from paraglider.core.restore import Translations, restore
from paraglider.core.unread import AT_ONCE, begin
from paraglider.forward.bpf import compacting
from paraglider.forward.bpf.carrier import CHUNK, STEPS
from paraglider.forward.bpf.compacting import AGE
from paraglider.forward.bpf.events import EXPANSIONS
from paraglider.forward.flows import FlowView, Match


def recorded(flows: int = 1000) -> Worker:
    """A worker with a journal, and room for ``flows``."""
    one = worker(entries=flows, room=2 * flows, bound=flows)
    services = one.path.balancer.services.services
    restore(one.flows, Journal(memory(flows)), Translations(services), 0.0)
    return one


def test_an_established_flow_becomes_compact() -> None:
    """After AGE, not before; it is counted, carried and found as ever."""
    one = recorded()
    key, back = (flow := one.open(now=0.0)).forward_key, flow.reverse_key
    one.settle(1.0)
    one.settle(AGE)
    assert one.compact == set()
    one.settle(AGE + 1.0)
    assert one.compact == {key}
    assert (len(one.flows), one.flows.active, one.carrier.carried) == (1, 1, 1)
    one.check()
    assert one.packet(TCP, back, "A", 17.0, ack=90)
    found = one.flows.reverse[TCP].get(back)
    assert found is not None
    assert (found.state, found.expected) == (ESTABLISHED, 90)
    assert abs(found.seen - 17.0) < 0.2
    one.check()
    one.settle(17.5)
    one.settle(AGE + 18.0)
    assert one.compact == {key}


def test_a_flow_that_ends_before_does_not() -> None:
    """It costs nothing more."""
    one = recorded()
    flow = one.open()
    one.settle(1.0)
    one.finish(flow, 2.0)
    one.settle(3.0)
    one.settle(AGE + 4.0)
    assert one.compact == set()
    one.check()


def test_the_end_of_a_compact_flow_is_seen() -> None:
    """By its event: the entry is removed, and the record freed when the flow has expired."""
    one = recorded()
    flow = one.open()
    key, back = flow.forward_key, flow.reverse_key
    one.settle(1.0)
    one.settle(AGE + 2.0)
    assert one.packet(TCP, key, "FA", 20.0)
    assert one.packet(TCP, back, "FA", 20.0)
    one.settle(21.0)
    assert (one.flows.closing, one.flows.active, one.compact) == (1, 0, set())
    one.check()
    assert not entries(one.maps.flows[TCP, 4])


def test_a_compact_flow_expires_by_its_entry() -> None:
    """Which has the time of the last packet."""
    one = recorded()
    key = one.open().forward_key
    one.settle(1.0)
    one.settle(AGE + 2.0)
    assert one.packet(TCP, key, "A", 5000.0)
    late = one.flows.timeouts.by_state[ESTABLISHED]
    one.flows.expire(late + 2.0)
    assert len(one.flows) == 1
    one.flows.expire(5000.0 + late + 2.0)
    assert len(one.flows) == 0
    one.check()


def test_datagrams_flows_become_compact_too() -> None:
    """When their client goes on after the answer."""
    one = recorded()
    key = client_key(1000)
    one.packet(UDP, key, now=0.0)
    flow = one.flows.forward[UDP][key]
    one.packet(UDP, flow.reverse_key, now=0.1)
    one.packet(UDP, key, now=0.2)
    assert flow.state == UDP_OPEN
    one.settle(1.0)
    one.settle(AGE + 2.0)
    assert one.compact == {key}
    one.check()


def test_switched_off_all_flows_are_the_workers() -> None:
    """None is compact, and none has an entry."""
    one = recorded()
    for client in range(5):
        one.open(1000 + client)
    one.settle(1.0)
    one.settle(AGE + 2.0)
    assert len(one.compact) == 5
    one.program.attached = False
    one.carrier.switch(False)
    one.settle(20.0)
    assert (one.compact, len(one.flows), one.carrier.carried) == (set(), 5, 0)
    one.check()
    one.settle(3 * AGE)
    assert one.compact == set()


def test_a_sweep_leaves_compact_flows_as_they_are() -> None:
    """If their entries are as they should be."""
    one = recorded()
    keys = {one.open(1000 + client).forward_key for client in range(5)}
    one.settle(1.0)
    one.settle(AGE + 2.0)
    one.program.lose_event()
    one.settle(20.0)
    assert one.compact == keys
    ended = min(keys)
    one.ring.room = 0
    back = one.translation_of(TCP, ended)
    assert back is not None
    for key in (ended, back.reverse_key(ended)):
        assert one.packet(TCP, key, "FA", 21.0)
    one.settle(23.0)
    assert one.compact == keys - {ended}
    one.check()


def test_a_step_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest follows with the next ticks."""
    monkeypatch.setattr(compacting, "STEP", 3)
    one = recorded()
    for client in range(8):
        one.open(1000 + client)
    one.settle(1.0)
    for count in (3, 6, 8):
        one.carrier.sync(AGE + 2.0)
        assert len(one.compact) == count


def test_few_flows_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait longest become compact before; one that has ended meanwhile does not."""
    monkeypatch.setattr(compacting, "MOST_WAITING", 3)
    one = recorded()
    first = one.open(999)
    one.settle(0.5)
    one.finish(first, 0.6)
    keys = [one.open(client, now=0.6).forward_key for client in range(1000, 1003)]
    one.settle(1.0)
    assert one.compact == set()
    keys += [one.open(client, now=1.0).forward_key for client in range(1003, 1005)]
    one.settle(1.1)
    assert 2 <= len(one.compact) < len(keys)
    one.settle(AGE + 1.2)
    assert one.compact == set(keys)
    one.check()


def test_an_event_of_a_compact_flow_needs_no_entry() -> None:
    """It tells all, so flows that end are read from no map, and removed in one call."""
    one, entries_of = recorded(), 5
    keys = [one.open(1000 + client).forward_key for client in range(entries_of)]
    one.settle(1.0)
    one.settle(AGE + 2.0)
    for key in keys:
        translation = one.translation_of(TCP, key)
        assert translation is not None
        for side in (key, translation.reverse_key(key)):
            assert one.packet(TCP, side, "FA", AGE + 3.0)
    flows = one.maps.flows[TCP, 4]
    assert isinstance(flows, MemoryMap)
    before = flows.calls
    one.carrier.sync(AGE + 4.0)
    assert flows.calls - before == 1
    assert (one.flows.closing, one.flows.active) == (entries_of, 0)
    assert {flow.seen for flow in one.flows.forward[TCP].values()} == {AGE + 4.0}
    one.check()


def test_the_flows_that_a_tick_expands_are_bounded() -> None:
    """However many there are, all are expanded when BPF is switched off."""
    count = 2 * STEPS * CHUNK
    one = recorded(count)
    for client in range(1000, 1000 + count):
        one.open(client)
    while one.flows.active < count:
        one.carrier.sync(1.0)
    while len(one.compact) < count:
        one.carrier.sync(AGE + 2.0)
    one.program.attached = False
    one.carrier.switch(False)
    while before := len(one.compact):
        one.carrier.sync(AGE + 3.0)
        assert before - len(one.compact) <= STEPS * CHUNK
    assert len(one.flows) == count
    one.check()


def test_flows_whose_record_is_lost_are_found_by_their_entries() -> None:
    """The journal was cut: what the worker does not know any more, the kernel does."""
    one = worker()
    buffer = memory(1000)
    services = one.path.balancer.services.services
    restore(one.flows, Journal(buffer), Translations(services), 0.0)
    keys = {one.open(1000 + client).forward_key for client in range(5)}
    one.settle(1.0)
    one.settle(AGE + 2.0)
    buffer[64:] = bytes(len(buffer) - 64)
    for compact in one.flows.compact:
        compact.step(100)
    assert (len(one.flows), one.carrier.carried) == (0, 0)
    one.settle(20.0)
    assert {flow.forward_key for flow in one.flows.forward[TCP].values()} == keys
    assert one.carrier.carried == one.flows.active == 5
    one.check()


def test_compact_flows_are_listed_and_ended() -> None:
    """Those that are meant; the others stay compact."""
    one = recorded()
    for client in range(1000, 1006):
        one.open(client)
    one.settle(1.0)
    one.settle(AGE + 2.0)
    view = FlowView([one.path], {})
    first, second = sorted(backend(address).name for address in V4.backends[:2])
    found = {id(flow): flow for flow in view.walk(Match(backend=first)) if flow is not None}
    assert len(found) == 3  # though each came twice
    described = [view.describe(flow, AGE + 3.0) for flow in found.values()]
    assert {row["carrier"] for row in described} == {"bpf"}
    assert {row["backend"] for row in described} == {first}
    assert {row["idle"] for row in described} <= {AGE + 3.0, AGE + 3.1}
    assert len(one.compact) == 3
    ended = [view.forget(flow, AGE + 3.0) for flow in view.walk(Match(backend=second)) if flow]
    assert ended == [True] * 3
    assert (len(one.flows), one.compact) == (3, set())
    one.check()


def test_flows_of_a_lost_backend_are_the_workers() -> None:
    """Their next packet is refused, and they are forgotten with it."""
    one = recorded()
    key = one.open().forward_key
    one.settle(1.0)
    one.settle(AGE + 2.0)
    pool = one.path.balancer.services.services[0].pool
    translation = one.translation_of(TCP, key)
    assert translation is not None
    pool.apply(translation.backend, Event.CHECK_FAILED)
    assert one.compact == {key}
    one.carrier.sync(AGE + 3.0)
    assert not one.packet(TCP, key, "A", AGE + 4.0)
    assert len(one.flows) == 0
    one.check()


@pytest.mark.parametrize(("prepared", "waiting"), [(compacting.PREPARED, 0), (4 * PAGESIZE, 3)])
def test_restored_flows_become_compact_at_once(
    prepared: int, waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a restart takes no more memory, but while their memory is provided in small pieces; each
    is the flow that it was.
    """
    monkeypatch.setattr(compacting, "PREPARED", prepared)
    maps, ring, buffer = memory_maps(8192), MemoryRing(8192), memory(8192)
    program = Program(maps, {0: ring})
    keys = set()
    for number in range(2):
        one = Worker([web()], maps, ring, program, bound=8192)
        services = one.path.balancer.services.services
        journal, translations = Journal(buffer), Translations(services)
        unread = begin(one.flows, journal, translations, 10.0 * number)
        assert (unread is not None) == bool(number)
        if unread is None:
            restore(one.flows, journal, translations, 0.0)
            one.carrier.sync(0.0)
            keys = {one.open(1000 + client).forward_key for client in range(AT_ONCE + 1)}
            one.settle(1.0)
    most = ticks = 0
    while one.flows.unread is not None:
        one.flows.unread.step(100)
        most = max(most, sum(1 for _ in one.flows.forward[TCP].values()))
        one.carrier.sync(10.0)
        ticks += 1
        assert (not one.compact) == (ticks <= waiting)
    one.settle(11.0)
    assert most < 200 + 150 * waiting
    assert len(one.compact) > len(keys) - 200
    one.settle(AGE + 11.0)
    assert one.compact == keys
    assert one.carrier.carried == one.flows.active == len(keys)
    one.check()


def test_events_of_compact_flows_are_fewer_in_a_tick() -> None:
    """Since flows are expanded for them; the rest follows with the next ticks."""
    flows = 3 * EXPANSIONS
    one = recorded(flows)
    for client in range(1000, 1000 + flows):
        one.open(client)
    while one.flows.active < flows:
        one.carrier.sync(1.0)
    while len(one.compact) < flows:
        one.carrier.sync(AGE + 2.0)
    for key in one.compact:
        translation = one.translation_of(TCP, key)
        assert translation is not None
        for side in (key, translation.reverse_key(key)):
            assert one.packet(TCP, side, "FA", AGE + 3.0)
    one.carrier.sync(AGE + 4.0)
    closing = 0
    while one.flows.closing < flows:
        assert one.flows.closing - closing <= EXPANSIONS
        closing = one.flows.closing
        one.carrier.sync(AGE + 5.0)
    assert (one.flows.active, one.compact) == (0, set())
    one.check()


def test_ended_flows_do_not_wait_to_become_compact() -> None:
    """Their objects are freed, without a journal and during a long walk over the table too."""
    for one in (worker(), recorded()):
        one.packet(TCP, client_key(1), "S")
        walk = one.flows.walk()
        next(walk)
        flow = one.open()
        one.settle(1.0)
        one.flows.forget(flow, 2.0)
        one.settle(2.0)
        one.settle(AGE + 3.0)
        assert sys.getrefcount(flow) == 2  # the name's and the argument's
        one.open(1001, now=AGE + 4.0)
        one.settle(AGE + 5.0)
        del walk
        one.settle(3 * AGE)
        one.settle(5 * AGE)
        assert len(one.compact) == (one.flows.journal is not None)
        one.check()

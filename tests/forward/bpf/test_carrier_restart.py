"""A worker that ends in the middle of everything, and its successor with the same maps."""

from __future__ import annotations

from typing import Any

import pytest
from bpf_world import WIDE, MemoryMap, MemoryRing, Program, Worker, client_key, memory_maps, web
from packets import V4, backend

from paraglider.bpf.layout import ALIAS, CLOSED, ESTABLISHED, REPLIED
from paraglider.core import flow_states as states
from paraglider.core import unread
from paraglider.core.flow import ICMP, TCP, UDP, FlowTimeouts
from paraglider.core.journal import Journal, size_of, write_header
from paraglider.core.pool import Event
from paraglider.core.restore import Translations, restore
from paraglider.core.service import VirtualService
from paraglider.core.unread import begin
from paraglider.forward.bpf.carrier import CHUNK, STEPS
from paraglider.forward.bpf.entry import FlowEntry, ticks_of
from paraglider.forward.bpf.events import ENTRIES

RECORDS = 3000


@pytest.fixture(autouse=True, params=["at once", "when needed"])
def _restored(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which flows are restored."""
    monkeypatch.setattr(Host, "at_once", request.param == "at once")
    monkeypatch.setattr(unread, "AT_ONCE", 0)


class Host:
    """Maps, ring and journal that outlive workers. Flows are restored ``at_once`` or when they are
    needed.
    """

    at_once = True

    def __init__(self, entries: int = 3000) -> None:
        self.maps = memory_maps(entries)
        self.ring = MemoryRing()
        self.rings = {owner: MemoryRing() for owner in range(8)}
        self.rings[0] = self.ring
        self.program = Program(self.maps, self.rings)
        self.memory = bytearray(size_of(RECORDS))
        write_header(self.memory, RECORDS, bytes(16))
        Journal(self.memory).complete = True
        self.started = False

    def start(self, *services: VirtualService, journal: bool = True, **options: Any) -> Worker:
        """A worker that continues with what there is; ``journal``: with its flows."""
        one = Worker(services or (web(),), self.maps, self.ring, self.program, **options)
        if not self.started:
            one.carrier.sync(0.0)
        self.started = True
        if not journal:
            self.memory[:] = bytes(len(self.memory))
            write_header(self.memory, RECORDS, bytes(16))
            Journal(self.memory).complete = True
        known = Translations(one.path.balancer.services.services)
        if not self.at_once and begin(one.flows, Journal(self.memory), known, 0.0) is not None:
            return one
        restore(one.flows, Journal(self.memory), known, 0.0)
        return one

    def put(self, key: bytes, entry: FlowEntry, protocol: int = TCP) -> None:
        """Have an entry that no worker of now has made."""
        self.maps.flows[protocol, 4].put(key, entry.pack())


@pytest.mark.parametrize("ports", [((80, 80),), WIDE], ids=["origin", "alias"])
def test_flows_go_on_and_their_successor_knows_them(ports: tuple[tuple[int, int], ...]) -> None:
    """The program carries them in between; what it saw is known after the sweep."""
    host = Host()
    before = host.start(web(ports=ports))
    live, closed, opening = before.open(1000), before.open(1001), client_key(1002)
    before.packet(TCP, opening, "S")
    for _ in range(2):
        before.packet(UDP, client_key(1003))
    for key, flags in ((closed.forward_key, "FA"), (closed.reverse_key, "FA")):
        assert before.packet(TCP, key, flags, 1.0)  # while nobody reads events
    assert before.packet(TCP, live.forward_key, "A", 5.0)
    after = host.start(web(ports=ports))
    assert after.packet(TCP, live.forward_key, "A", 6.0)
    after.settle(7.0)
    after.check()
    flows = after.flows.forward[TCP]
    assert flows[live.forward_key].state == states.ESTABLISHED
    assert flows[live.forward_key].seen == pytest.approx(6.0, abs=0.2)
    assert flows[closed.forward_key].state == states.TIME_WAIT
    assert flows[opening].state == states.SYN_SENT
    assert after.carrier.carried == 3
    assert after.packet(UDP, client_key(1003), now=8.0)
    assert after.packet(TCP, flows[opening].reverse_key, "SA", 8.0, seq=70)


def test_a_restored_flow_is_asked_for_before_it_is_judged() -> None:
    """Before the sweep has come to it too: its ports are used again, it expires, it is reset."""
    host = Host()
    before = host.start()
    flows = [before.open(port) for port in range(1000, 1004)]
    for key in (flows[0].forward_key, flows[0].reverse_key):
        before.packet(TCP, key, "FA", 1.0)
    before.packet(TCP, flows[1].forward_key, "A", 7000.0)
    after = host.start()
    again = after.open(1000, 2.0)
    assert again.state == states.SYN_SENT
    after.packet(TCP, flows[2].forward_key, "R", 2.0)
    assert after.flows.forward[TCP][flows[2].forward_key].state == states.CLIENT_RESET
    after.flows.expire(7500.0)
    kept = after.flows.forward[TCP]
    assert flows[1].forward_key in kept
    assert flows[3].forward_key not in kept
    after.settle(7500.0)
    after.check()


def test_established_flows_without_an_entry_are_installed() -> None:
    """After a host that had no carrier, or whose maps were full; others stay the worker's."""
    host = Host()
    before = host.start()
    flow, opening = before.open(1000), client_key(1001)
    before.packet(TCP, opening, "S")
    before.carrier.sync(0.1)
    for flows in host.maps.flows.values():
        assert isinstance(flows, MemoryMap)
        flows.content.clear()
    after = host.start()
    after.settle(1.0)
    after.check()
    assert after.carrier.carried == 1
    assert after.packet(TCP, flow.forward_key, "A", 1.0)
    assert after.packet(TCP, flow.reverse_key, "A", 1.0)


def test_a_sweep_waits_until_all_flows_are_restored() -> None:
    """Else it would have them restored at once, one by one; packets do not wait."""
    host = Host()
    before = host.start()
    keys = [before.open(1000 + number).forward_key for number in range(40)]
    before.settle(0.5)  # and it has read all events
    after = host.start()
    unread = after.flows.unread
    for _ in range(3):
        after.carrier.sync(1.0)
    if unread is not None:
        assert after.flows.reserved == len(keys)
    assert after.packet(TCP, keys[7], "A", 1.0)
    after.settle(2.0)
    after.check()
    assert after.carrier.carried == len(keys)


def test_echo_is_the_workers() -> None:
    """Its flows are restored, and no map is asked for them."""
    host = Host()
    before = host.start(web(echo=True))
    (translation, _) = before.path.balancer.services.services[0].translations.values()
    key = client_key(7, 7)
    before.flows.open(ICMP, key, translation.reverse_key(key), translation, 0.0)
    after = host.start(web(echo=True))
    after.settle(1.0)
    assert list(after.flows.forward[ICMP]) == [key]
    after.path.end(after.flows.forward[ICMP][key], 2.0)
    assert after.carrier.counts() == {"carrier_refused": 0}


def test_flows_that_the_journal_lacks_are_added() -> None:
    """It is lost, or had no memory: a live entry is a flow; it is in the journal again."""
    host = Host()
    before = host.start()
    flow = before.open()
    for _ in range(2):
        before.packet(UDP, client_key(1001))
    after = host.start(journal=False)
    after.settle(1.0)
    after.check()
    restored = after.flows.forward[TCP][flow.forward_key]
    assert (restored.state, restored.translation.backend.name) == (
        states.ESTABLISHED,
        flow.translation.backend.name,
    )
    assert len(after.flows) == 2
    assert [state for _, state, *_ in Journal(host.memory).read()] == [
        states.ESTABLISHED,
        states.UDP_NEW,
    ]
    assert after.packet(TCP, flow.reverse_key, "A", 1.0)


def test_entries_of_nobody_are_removed() -> None:
    """Closed, out of time, to a VIP or a backend that is no more, and aliases; those of another
    worker stay.
    """
    host = Host()
    first = host.start(timeouts=FlowTimeouts(established=100))
    (translation, _) = first.path.balancer.services.services[0].translations.values()
    index, now = translation.slot, 1000.0
    live = FlowEntry(ticks_of(now), REPLIED | ESTABLISHED, 0, index)
    host.put(client_key(1), live._replace(flags=live.flags | CLOSED))
    host.put(client_key(2), live._replace(ticks=ticks_of(800.0)))
    host.put(client_key(3), live._replace(slot=index ^ 1))
    host.put(client_key(4, vip=V4.other_vip), live)
    host.put(client_key(5), live._replace(flags=ALIAS))
    host.put(client_key(6), live._replace(owner=3))
    first.carrier.switch(False)
    first.settle(now)
    flows = host.maps.flows[TCP, 4]
    assert isinstance(flows, MemoryMap)
    assert flows.content == {}  # worker 3 is no more, and this is the first of one
    host.put(client_key(6), live._replace(owner=3))
    other = host.start(journal=False, index=1, workers=4)
    other.settle(now)
    assert list(flows.content) == [client_key(6)]


def test_workers_that_are_no_more_have_their_flows_taken_over() -> None:
    """By the first, which then gets their events."""
    host = Host()
    before = host.start(index=3, workers=4)
    flow = before.open()
    after = host.start()
    after.settle(1.0)
    value = host.maps.flows[TCP, 4].get(flow.forward_key)
    assert value is not None
    assert FlowEntry.unpack(value).owner == 0
    assert FlowEntry.unpack(value).packets_out == 1
    after.check()
    for key in (flow.forward_key, flow.reverse_key):
        assert after.packet(TCP, key, "FA", 2.0)
    after.carrier.sync(2.1)
    assert after.flows.forward[TCP][flow.forward_key].state == states.TIME_WAIT
    after.check()


def test_flows_of_a_renamed_service_go_on() -> None:
    """Their entries have the place of the older name, which is told of a lost backend too."""
    host = Host()
    flow = host.start().open()
    service = web(name="renamed", life={"on_down": "reset"})
    after = host.start(service)
    after.settle(1.0)
    after.check()
    renamed = after.flows.forward[TCP][flow.forward_key]
    assert renamed.state == states.ESTABLISHED
    assert after.packet(TCP, flow.reverse_key, "A", 1.0)
    service.pool.apply(renamed.translation.backend, Event.CHECK_FAILED)
    after.carrier.sync(2.0)
    assert not after.packet(TCP, flow.reverse_key, "A", 2.0)


def test_flows_of_removed_backends_are_left_to_nobody() -> None:
    """Their entries go, as their records do."""
    host = Host()
    before = host.start(web(backends=[backend(V4.backends[0])]))
    before.open()
    after = host.start(web(backends=[backend(V4.backends[1])]))
    after.settle(1.0)
    after.check()
    assert len(after.flows) == after.carrier.carried == 0


def test_a_restart_costs_a_bounded_number_of_calls_a_tick() -> None:
    """1,000 flows or a million: restoring makes no call, and every tick a few hundred."""
    host = Host()
    before = host.start(bound=RECORDS)
    for port in range(1000, 1000 + 6 * CHUNK):
        before.open(port)
    flows = host.maps.flows[TCP, 4]
    assert isinstance(flows, MemoryMap)
    calls = flows.calls
    after = host.start(bound=RECORDS)
    assert flows.calls == calls
    ticks, most = 0, 0
    while not after.carrier.idle or not ticks:
        if after.flows.unread is not None:
            after.flows.unread.step(2 * CHUNK)
        calls = flows.calls
        after.carrier.sync(1.0)
        most = max(most, flows.calls - calls)
        ticks += 1
    assert most <= ENTRIES + STEPS * (CHUNK + 1)
    assert ticks >= 2
    after.check()
    assert after.carrier.carried == 6 * CHUNK


def test_a_full_ring_after_a_restart_is_read_in_bounded_steps() -> None:
    """The entries of all its events have to be read: some in each tick, while a packet reads its
    own only; in the end the states of all flows are known.
    """
    host = Host()
    one, ports = host.start(), range(1000, 1000 + 4 * ENTRIES)
    for port in ports:
        one.open(port)
    after = host.start()
    flows = host.maps.flows[TCP, 4]
    assert isinstance(flows, MemoryMap)
    after.carrier.sync(0.2)
    before = flows.calls
    after.packet(TCP, client_key(ports[-1]), "R", 0.2)
    assert flows.calls - before < ENTRIES // 2  # a few, or those of a group of restored flows
    ticks = 0
    while after.ring.events or after.flows.active < len(ports) - 1 or not after.carrier.idle:
        before = flows.calls
        after.carrier.sync(0.3)
        if after.flows.unread is not None:
            after.flows.unread.step()
        assert flows.calls - before <= ENTRIES + STEPS * (CHUNK + 1)
        ticks += 1
        assert ticks < 1000

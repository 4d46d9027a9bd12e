"""Tests of ``paraglider.forward.bpf.decided``: every connection that the program decided is counted
once, and those that last become flows.
"""

from __future__ import annotations

import pytest
from bpf_world import MemoryMap, MemoryRing, Program, Worker, client_key, memory_maps, web, worker
from packets import V4, backend, packed

from paraglider.bpf.layout import (
    ALIAS,
    CLOSED,
    DECIDED,
    DIRECT,
    ESTABLISHED,
    EVENT,
    EVENT_CLOSED,
    EVENT_ESTABLISHED,
    EVENT_OPENED,
    FIN_BACK,
    FIN_OUT,
    REPLIED,
)
from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, UDP
from paraglider.core.service import VirtualService
from paraglider.forward.bpf.closed import LINGER
from paraglider.forward.bpf.entry import PLAIN, FlowEntry, ticks_of

WIDE = ((80, 1080),)
OPEN = DECIDED | REPLIED | ESTABLISHED
OVER = OPEN | FIN_OUT | FIN_BACK | CLOSED


class Kernel:
    """A program that decides, for the worker ``one`` with a service."""

    def __init__(self, one: Worker, service: VirtualService, ring: MemoryRing) -> None:
        self.one = one
        self.translation = next(iter(service.translations.values()))
        self.backend = self.translation.backend
        self.ring = ring

    def entries(self, protocol: int = TCP) -> dict[bytes, bytes]:
        """All entries."""
        flows = self.one.maps.flows[protocol, 4]
        assert isinstance(flows, MemoryMap)
        return flows.content

    def decide(
        self, port: int, flags: int = DECIDED, protocol: int = TCP, now: float = 0.0
    ) -> bytes:
        """A connection or a datagram of a client, whose entry has ``flags`` now; the key."""
        key = client_key(port)
        entry = FlowEntry(ticks_of(now), flags, 0, self.translation.slot)
        self.entries(protocol)[key] = entry.pack()
        if self.translation.aliased:
            alias = FlowEntry(0, ALIAS, 0, self.translation.slot).pack()
            self.entries(protocol)[self.translation.reverse_key(key)] = alias
        self.tell(EVENT_OPENED, flags & (DECIDED | DIRECT), key, protocol)
        if flags & ESTABLISHED:
            self.tell(EVENT_ESTABLISHED, OPEN, key, protocol)
        if flags & CLOSED:
            self.tell(EVENT_CLOSED, flags, key, protocol)
        return key

    def tell(self, kind: int, flags: int, key: bytes, protocol: int = TCP) -> None:
        """Send an event, unless the ring is full."""
        if len(self.ring.events) < self.ring.room:
            slot = self.translation.slot
            self.ring.events.append(EVENT.pack(kind, 4, protocol, flags, slot, key))


def started(
    ports: tuple[tuple[int, int], ...] = ((80, 80),), room: int = 1000, **changes: object
) -> Kernel:
    """A worker whose service with one backend is decided by the program."""
    service = web(ports=ports, backends=[backend(V4.backends[0])], **changes)
    maps, ring = memory_maps(), MemoryRing(room)
    one = Worker([service], maps, ring, Program(maps, {0: ring}))
    one.carrier.configure([service], (), [service])
    one.settle(0.0)
    return Kernel(one, service, ring)


@pytest.fixture(params=[((80, 80),), WIDE], ids=["origin", "alias"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """A program with or without entries for replies."""
    return started(request.param)


def test_a_connection_that_lasts_becomes_a_flow(kernel: Kernel) -> None:
    """Counted, established, and closed as if the worker had decided."""
    one, key = kernel.one, kernel.decide(1000, OPEN)
    one.carrier.sync(0.1)
    flow = one.flows.forward[TCP][key]
    assert (flow.state, kernel.backend.conns, kernel.backend.flows) == (states.ESTABLISHED, 1, 1)
    one.check()
    kernel.entries()[key] = FlowEntry(0, OVER, 0, kernel.translation.slot).pack()
    kernel.tell(EVENT_CLOSED, OVER, key)
    one.carrier.sync(0.2)
    assert (flow.state, kernel.backend.conns, kernel.backend.closing) == (states.TIME_WAIT, 1, 1)
    one.check()


def test_one_that_is_not_established_yet_is_opening(kernel: Kernel) -> None:
    """Until the event of that."""
    one, key = kernel.one, kernel.decide(1000)
    one.carrier.sync(0.1)
    assert (one.flows.forward[TCP][key].state, kernel.backend.opening) == (states.SYN_SENT, 1)
    kernel.entries()[key] = FlowEntry(0, OPEN, 0, kernel.translation.slot).pack()
    kernel.tell(EVENT_ESTABLISHED, OPEN, key)
    one.carrier.sync(0.2)
    assert (kernel.backend.opening, kernel.backend.flows, kernel.backend.conns) == (0, 1, 1)


def test_one_that_a_reply_has_opened() -> None:
    """Without an entry before, it is established at once; of the two events that say so, the worker
    may read one alone. The flow keeps its entry, and is as those that a SYN has opened.
    """
    kernel = started()
    one, key = kernel.one, client_key(1000)
    kernel.entries()[key] = FlowEntry(0, OPEN, 0, kernel.translation.slot).pack()
    kernel.tell(EVENT_OPENED, DECIDED | REPLIED, key)
    one.carrier.sync(0.1)
    flow = one.flows.forward[TCP][key]
    assert (kernel.backend.opening, flow.carried, key in kernel.entries()) == (1, PLAIN, True)
    kernel.tell(EVENT_ESTABLISHED, OPEN, key)
    one.carrier.sync(0.2)
    assert (flow.state, kernel.backend.conns, kernel.backend.flows) == (states.ESTABLISHED, 1, 1)
    one.check()


def test_one_that_is_over_within_a_tick_is_counted(kernel: Kernel) -> None:
    """It makes no flow; its entry stays for a while, also through a sweep, and goes."""
    one = kernel.one
    kernel.decide(1000, OVER)
    one.carrier.sync(0.1)
    assert (len(one.flows), kernel.backend.conns) == (0, 1)
    one.carrier.switch(False)
    one.settle(0.2)
    assert (len(kernel.entries()), kernel.backend.conns) == (1 + kernel.translation.aliased, 1)
    one.carrier.sync(0.1 + LINGER)
    assert (kernel.entries(), len(one.flows)) == ({}, 0)


def test_ports_that_are_used_again_count_again(kernel: Kernel) -> None:
    """Whether the earlier connection made a flow or not, within a tick and later."""
    one, key = kernel.one, client_key(1000)
    for number in range(3):
        kernel.decide(1000, OVER)
        kernel.decide(1000, OPEN)
        one.carrier.sync(number / 10)
        assert kernel.backend.conns == 2 * number + 2
        assert one.flows.forward[TCP][key].state == states.ESTABLISHED
    one.check()
    one.carrier.sync(1.0 + LINGER)
    assert key in kernel.entries()


def test_a_packet_before_the_event(kernel: Kernel) -> None:
    """One that passes the worker belongs to the flow: its event is read first."""
    one, key = kernel.one, kernel.decide(1000, OPEN)
    assert not one.packet(TCP, key, "R", 0.1)
    assert one.flows.forward[TCP][key].state == states.CLIENT_RESET
    assert kernel.backend.conns == 1
    reply = kernel.translation.reverse_key(kernel.decide(1001, OPEN))
    assert not one.packet(TCP, reply, "R", 0.1)
    assert one.flows.reverse[TCP][reply].state == states.RESET
    assert kernel.backend.conns == 2
    one.carrier.sync(0.2)
    assert kernel.backend.conns == 2


def test_a_packet_whose_event_is_late(kernel: Kernel) -> None:
    """It belongs to the flow of the entry, and the event counts nothing."""
    one, key = kernel.one, kernel.decide(1000, OPEN)
    late, kernel.ring.events = kernel.ring.events, []
    reply = kernel.translation.reverse_key(key)
    assert not one.packet(TCP, reply, "R", 0.1)
    assert (one.flows.forward[TCP][key].state, kernel.backend.conns) == (states.RESET, 1)
    kernel.ring.events = late
    one.carrier.sync(0.2)
    assert kernel.backend.conns == 1
    one.check()


def test_a_repeated_syn_is_no_new_connection() -> None:
    """It is counted as unanswered, and goes to the same backend."""
    kernel = started()
    key = kernel.decide(1000)
    assert not kernel.one.packet(TCP, key, "S", 1.0)
    assert (kernel.backend.conns, kernel.backend.unanswered) == (1, 1)


def test_a_packet_of_no_flow_is_a_strangers() -> None:
    """There is no entry: a SYN opens a flow, other segments pass to the local stack."""
    kernel = started()
    assert not kernel.one.packet(TCP, client_key(1000), "A", 0.1)
    assert len(kernel.one.flows) == 0
    kernel.one.packet(TCP, client_key(1000), "S", 0.1)
    assert (len(kernel.one.flows), kernel.backend.conns) == (1, 1)


def test_lost_events_are_made_up_for(kernel: Kernel) -> None:
    """The sweep counts what it finds, once, and keeps what lasts."""
    one = kernel.one
    kernel.ring.room = 0
    for port, flags in ((1000, DECIDED), (1001, OPEN), (1002, OVER)):
        kernel.decide(port, flags)
    for moment in (2.0, 3.0):
        one.program.lose_event()
        one.settle(moment)
        assert (kernel.backend.conns, kernel.backend.opening, kernel.backend.flows) == (3, 1, 1)
    one.settle(3.0 + LINGER)
    one.check()


def test_events_after_a_sweep_count_nothing_more(kernel: Kernel) -> None:
    """Those of entries that it met before the ring was read to its end."""
    one = kernel.one
    for port, flags in ((1000, DECIDED), (1001, OPEN), (1002, OVER)):
        kernel.decide(port, flags)
    late, kernel.ring.events = kernel.ring.events, []
    one.program.lose_event()
    one.settle(2.0)
    kernel.ring.events = late
    one.settle(2.1)
    assert kernel.backend.conns == 3


def test_datagrams_are_answered_or_not() -> None:
    """The entry says which."""
    kernel = started()
    for port, back in ((1000, 0), (1001, 1)):
        key = kernel.decide(port, protocol=UDP)
        entry = FlowEntry(0, DECIDED, 0, kernel.translation.slot, 0, 1, back)
        kernel.entries(UDP)[key] = entry.pack()
    kernel.one.carrier.sync(0.1)
    found = [kernel.one.flows.forward[UDP][client_key(port)].state for port in (1000, 1001)]
    assert found == [states.UDP_NEW, states.UDP_OPEN]
    assert kernel.backend.conns == 2


def test_a_datagram_that_the_worker_decides_has_an_entry_at_once() -> None:
    """Else the program would decide anew about the next one; also of flows that were there before
    the program decided.
    """
    kernel = started()
    key = client_key(1000)
    kernel.one.packet(UDP, key)
    assert key in kernel.entries(UDP)
    service = kernel.one.path.balancer.services.services[0]
    kernel.one.carrier.configure([service], (), ())
    other = client_key(1001)
    kernel.one.packet(UDP, other)
    assert other not in kernel.entries(UDP)
    kernel.one.carrier.configure([service], (), [service])
    kernel.one.settle(0.1)
    assert other in kernel.entries(UDP)
    kernel.one.check()


def test_new_flows_are_reported() -> None:
    """Each once, with its backend, also those that are over."""
    kernel = started()
    told: list[tuple[int, bytes, str]] = []
    kernel.one.carrier.report_to(kernel.one.path)
    keys = [kernel.decide(1000, OPEN), kernel.decide(1001, OVER)]
    kernel.one.path.opened = lambda protocol, key, chosen: told.append((protocol, key, chosen.name))
    kernel.one.carrier.sync(0.1)
    assert sorted(told) == [(TCP, key, kernel.backend.name) for key in keys]


def test_a_full_table_has_no_room_for_a_flow() -> None:
    """Its connection goes as one does that the worker refuses."""
    kernel = started()
    kernel.one.flows.bound = 2
    keys = [kernel.decide(port, OPEN) for port in range(1000, 1004)]
    kernel.one.carrier.sync(0.1)
    assert (len(kernel.one.flows), kernel.backend.conns) == (2, 2)
    assert set(kernel.entries()) == set(keys[:2])


def test_the_next_worker_has_the_flows(kernel: Kernel) -> None:
    """Those of which no event was read are counted by it."""
    kernel.decide(1000, OPEN)
    kernel.ring.events.clear()
    other = web(ports=((80, 80),), backends=[backend(V4.backends[0])])
    after = worker(other)
    assert len(after.flows) == 0
    service = web(
        ports=WIDE if kernel.translation.aliased else ((80, 80),),
        backends=[backend(V4.backends[0])],
    )
    successor = Worker([service], kernel.one.maps, kernel.ring, kernel.one.program)
    successor.settle(0.1)
    (flow,) = successor.flows.forward[TCP].values()
    assert (flow.state, flow.translation.backend.conns) == (states.ESTABLISHED, 1)
    successor.check()


def test_the_key_of_the_client(kernel: Kernel) -> None:
    """Follows from that of the backend's packets."""
    key = client_key(1234)
    assert kernel.translation.forward_key(kernel.translation.reverse_key(key)) == key
    assert key[4:8] == packed(V4.vip)


ONE_SIDED = {
    "nat": {"direct": True},
    "dsr": {"direct": True, "routed": True, "method": "dsr"},
}
HALF = DECIDED | DIRECT


@pytest.fixture(params=ONE_SIDED)
def half(request: pytest.FixtureRequest) -> Kernel:
    """A program that decides about flows whose replies do not pass here."""
    return started(**ONE_SIDED[request.param])


def half_open(half: Kernel, port: int = 1000) -> bytes:
    """A flow that the program has opened; its key."""
    key = half.decide(port, HALF)
    half.one.carrier.sync(0.1)
    return key


def test_a_one_sided_flow_lives_by_its_entry(half: Kernel) -> None:
    """The worker hears when it is established, of the client's FIN, and of the end."""
    one = half.one
    key = half_open(half)
    flow = one.flows.forward[TCP][key]
    assert (flow.state, half.backend.opening, half.backend.conns) == (states.SYN_SENT, 1, 1)
    rows = [
        (("A", 101, 501), states.SYN_SENT, "opening"),
        (("PA", 201, 501), states.SYN_SENT, "opening"),
        (("A", 301, 501), states.ESTABLISHED, "flows"),
        (("FA", 301, 501), states.CLIENT_DONE, "closing"),
        (("A", 302, 502), states.TIME_WAIT, "closing"),
    ]
    one.program.known.add(key[:4])
    for now, ((flags, seq, ack), state, group) in enumerate(rows, 1):
        assert one.packet(TCP, key, flags, now / 8, seq=seq, ack=ack)
        one.carrier.sync(now / 8)
        assert (flow.state, getattr(half.backend, group)) == (state, 1)
        one.check()
    assert (half.backend.conns, one.seen) == (1, 0)


def test_a_one_sided_connection_that_is_over_within_a_tick(half: Kernel) -> None:
    """It is counted and makes no flow; the next one with its port gets an entry of its own."""
    one = half.one
    over = HALF | REPLIED | FIN_OUT | CLOSED
    key = half.decide(1000, over)
    one.carrier.sync(0.1)
    assert (len(one.flows), half.backend.conns) == (0, 1)
    assert not one.packet(TCP, key, "S", 1.0, seq=7)
    flow = one.flows.forward[TCP][key]
    assert (flow.state, half.backend.conns) == (states.SYN_SENT, 2)
    assert FlowEntry.unpack(half.entries()[key]).flags == DIRECT
    assert one.packet(TCP, key, "A", 1.1, seq=8, ack=900)
    one.carrier.sync(LINGER + 1.0)
    one.check()
    assert (half.backend.conns, one.flows.forward[TCP][key]) == (2, flow)


def test_a_packet_of_a_one_sided_flow_that_the_worker_does_not_have_yet(half: Kernel) -> None:
    """A RST, or a SYN sent again, before the event was read: the flow is the program's."""
    one = half.one
    key = half.decide(1000, HALF)
    assert not one.packet(TCP, key, "S", 0.1, seq=1)
    flow = one.flows.forward[TCP][key]
    assert (flow.translation.backend, half.backend.conns) == (half.backend, 1)
    assert half.backend.unanswered == 1
    assert not one.packet(TCP, key, "R", 0.2, seq=1)
    assert (flow.state, flow.carried) == (states.CLIENT_RESET, 0)
    one.check()


def test_a_restart_finds_one_sided_flows(half: Kernel) -> None:
    """By their entries, in the state that these have, and counted."""
    expected = {
        HALF: states.SYN_SENT,
        HALF | REPLIED: states.UNCONFIRMED,
        HALF | REPLIED | ESTABLISHED: states.ESTABLISHED,
        HALF | REPLIED | FIN_OUT: states.CLIENT_DONE,
    }
    half.ring.room = 0
    for port, flags in enumerate(expected, 1000):
        half.decide(port, flags)
    one = half.one
    one.carrier.switch(False)
    one.carrier.switch(True)
    one.settle(1.0)
    found = [flow.state for flow in one.flows.forward[TCP].values()]
    assert sorted(found) == sorted(expected.values())
    assert half.backend.conns == len(expected)


def test_one_sided_datagrams(half: Kernel) -> None:
    """A second one opens the flow for good; a lost event changes nothing."""
    one = half.one
    key = half.decide(1000, HALF, UDP)
    assert one.packet(UDP, key, now=0.1)
    one.carrier.sync(0.2)
    flow = one.flows.forward[UDP][key]
    assert (flow.state, half.backend.conns) == (states.UDP_NEW, 1)
    assert one.packet(UDP, key, now=0.3)
    one.flows.refresh(flow)
    assert flow.state == states.UDP_OPEN
    one.check()


def test_what_a_worker_decides_has_an_entry_too(half: Kernel) -> None:
    """Else the program would decide about the next datagram, perhaps otherwise."""
    one, key = half.one, client_key(1000)
    assert not one.packet(UDP, key)
    assert FlowEntry.unpack(half.entries(UDP)[key]).flags == DIRECT
    assert one.packet(UDP, key, now=1.0)
    assert not one.packet(TCP, key, "S", seq=1)
    for number in (2, 3, 4):
        assert one.packet(TCP, key, "A", float(number), seq=number, ack=9)
    one.carrier.sync(5.0)
    assert one.flows.forward[TCP][key].state == states.ESTABLISHED
    one.check()

"""Tests of ``paraglider.forward.bpf.events``: events are believed unless they may be old."""

from __future__ import annotations

from bpf_world import MemoryMap, MemoryRing, Worker, client_key, worker

from paraglider.bpf.layout import (
    CLOSED,
    ESTABLISHED,
    EVENT,
    EVENT_CLOSED,
    EVENT_OPENED,
    FIN_BACK,
    FIN_OUT,
    REPLIED,
)
from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, Flow
from paraglider.forward.bpf.context import BpfContext
from paraglider.forward.bpf.decided import DecidedFlows
from paraglider.forward.bpf.events import AN_ENTRY, ENTRIES, EVENTS, OPENING, PORTION
from paraglider.forward.bpf.flows import CarriedFlows
from paraglider.forward.bpf.slots import Slots

OVER = REPLIED | ESTABLISHED | FIN_OUT | FIN_BACK | CLOSED


class Alone(CarriedFlows):
    """Flows that no packet is looked up for."""

    def fetch(self, _protocol: int, _key: bytes, _now: float) -> bool:
        """See ``FlowCarrier``."""
        return False


class Reader:
    """A reader of events of a worker's flows, which are carried."""

    def __init__(self, readings: int = 2) -> None:
        self.worker: Worker = worker(bound=3000, entries=3000)
        self.ring = MemoryRing()
        context = BpfContext(self.worker.maps, self.ring)
        slots = Slots(self.worker.maps)
        slots.configure(self.worker.path.balancer.services.services, ())
        self.flows = Alone(context, slots, self.worker.flows)
        self.worker.flows.carrier = self.flows  # type: ignore[assignment] # nothing is refreshed
        self.events = context.events
        self.events.add(self.flows, DecidedFlows(self.worker.maps, self.flows, slots))
        for _ in range(readings):
            self.events.read(0.0)

    def put(self, key: bytes, flags: int = OVER) -> None:
        """Have an event of the flow with ``key``."""
        self.ring.events.append(EVENT.pack(EVENT_CLOSED, 4, TCP, flags, 0, key))

    def flow(self, client: int = 1000) -> Flow:
        """One that has sent its SYN."""
        key = client_key(client)
        self.worker.packet(TCP, key, "S")
        return self.worker.flows.forward[TCP][key]

    @property
    def calls(self) -> int:
        """Calls of the kernel for entries so far."""
        flows = self.worker.maps.flows[TCP, 4]
        assert isinstance(flows, MemoryMap)
        return flows.calls


def test_an_event_is_believed() -> None:
    """No entry is read; those of all that are over are removed in one call."""
    reader = Reader()
    flows = [reader.flow(1000 + n) for n in range(20)]
    for flow in flows:
        reader.put(flow.forward_key, REPLIED | ESTABLISHED)
        reader.put(flow.forward_key, OVER)
    calls = reader.calls
    assert reader.events.read(5.0) == []
    assert reader.calls == calls + 1
    assert {(flow.state, flow.seen, flow.carried) for flow in flows} == {(states.TIME_WAIT, 5.0, 0)}
    assert flows[0].proof == states.GROWTHS
    for flow in flows:
        assert reader.worker.maps.flows[TCP, 4].get(flow.forward_key) is None


def test_events_of_a_predecessor_are_doubtful() -> None:
    """Of the same key another flow may have been; their entries say what is true."""
    reader = Reader(readings=0)
    flow = reader.flow()
    reader.put(flow.forward_key)
    assert reader.events.read(1.0) == [flow.forward_key]
    assert flow.state == states.SYN_SENT


def test_events_of_a_removed_entry_are_doubtful() -> None:
    """The ports may be used again; two readings later they are not."""
    reader = Reader()
    flow = reader.flow()
    for _ in range(2):
        reader.flows.remove(flow)
        reader.flows.install(flow)
        reader.put(flow.forward_key)
        assert reader.events.read(1.0) == [flow.forward_key]
        reader.put(flow.forward_key)
        assert reader.events.read(1.0) == [flow.forward_key]
    assert flow.state == states.SYN_SENT
    reader.put(flow.forward_key)
    assert reader.events.read(1.0) == []
    assert flow.state == states.TIME_WAIT


def test_a_reading_that_ends_early_forgets_nothing() -> None:
    """The event of the removed entry may be behind those that were read."""
    reader = Reader()
    flow = reader.flow()
    reader.flows.remove(flow)
    reader.flows.install(flow)
    for client in range(3 * EVENTS):
        reader.put(client_key(2000 + client))
    reader.put(flow.forward_key)
    keys: list[bytes] = []
    while flow.forward_key not in keys:
        found = reader.events.read(1.0)
        assert len(found) == ENTRIES or found[-1] == flow.forward_key
        assert reader.events.count <= EVENTS + PORTION + AN_ENTRY * ENTRIES
        keys += found
    assert keys == [*(client_key(2000 + client) for client in range(3 * EVENTS)), flow.forward_key]


def test_events_of_unknown_flows_are_asked_for() -> None:
    """Of those that another worker opened, or whose entry this one has not found yet."""
    reader = Reader()
    flow = reader.flow()
    flow.carried = 3
    reader.put(flow.forward_key)
    reader.put(client_key(7))
    assert reader.events.read(1.0) == [flow.forward_key, client_key(7)]


def test_openings_count_for_more() -> None:
    """A reading of openings takes as long as one of other events."""
    reader = Reader()
    for client in range(EVENTS):
        key = client_key(2000 + client)
        reader.ring.events.append(EVENT.pack(EVENT_OPENED, 4, TCP, 0, 999, key))
    reader.events.read(1.0)
    taken = EVENTS - len(reader.ring.events)
    assert EVENTS <= OPENING * taken < EVENTS + OPENING * PORTION


def test_a_packet_reads_no_entry_of_others() -> None:
    """Their keys wait."""
    reader = Reader(readings=0)
    flow = reader.flow()
    reader.put(flow.forward_key)
    assert reader.events.read(1.0, 0) == []
    assert reader.events.read(1.0) == [flow.forward_key]
    assert reader.events.read(1.0) == []

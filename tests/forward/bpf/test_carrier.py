"""Tests of ``paraglider.forward.bpf.carrier``: lives of flows that a model of the program
carries; restarts are in ``test_carrier_restart``.
"""

from __future__ import annotations

import pytest
from bpf_world import EVENTS_LOST, WIDE, MemoryCounters, MemoryMap, client_key, web, worker

from paraglider.bpf.layout import (
    CLOSED,
    ESTABLISHED,
    EVENT,
    EVENT_CLOSED,
    FIN_BACK,
    FIN_OUT,
    REPLIED,
)
from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, UDP, FlowTimeouts
from paraglider.core.pool import Event
from paraglider.core.service import ALL_PORTS
from paraglider.forward.bpf.carrier import CHUNK, STEPS
from paraglider.forward.bpf.events import EVENTS


@pytest.mark.parametrize("ports", [((80, 80),), WIDE], ids=["origin", "alias"])
def test_the_worker_sees_one_packet_of_a_connection(ports: tuple[tuple[int, int], ...]) -> None:
    """Its SYN; what became of it is known with the next tick, and nothing is left of it then."""
    one = worker(web(ports=ports))
    flow = one.open()
    assert flow.state == states.SYN_SENT
    one.carrier.sync(0.1)
    assert (flow.state, flow.translation.backend.flows) == (states.ESTABLISHED, 1)
    for key in (flow.forward_key, flow.reverse_key):
        assert one.packet(TCP, key, "PA", 1.0)
    one.check()
    one.finish(flow, 2.0)
    one.carrier.sync(2.1)
    assert (one.seen, flow.state, flow.translation.backend.closing) == (1, states.TIME_WAIT, 1)
    one.check()
    assert one.carrier.carried == 0


def test_a_connection_that_is_over_within_a_tick_was_established() -> None:
    """For the affinity and the counters it passes through all states."""
    one = worker()
    flow = one.open()
    one.finish(flow, 0.0)
    one.carrier.sync(0.1)
    assert (flow.state, flow.proof) == (states.TIME_WAIT, states.GROWTHS)


def test_datagrams_are_carried_from_the_second_on() -> None:
    """Without an answer too; a flood of first datagrams leaves nothing in the kernel."""
    one = worker()
    key = client_key(1000)
    assert not one.packet(UDP, key)
    assert one.carrier.carried == 0
    assert not one.packet(UDP, key)
    flow = one.flows.forward[UDP][key]
    assert one.packet(UDP, key, now=1.0)
    assert not one.flows.refresh(flow) or flow.state == states.UDP_NEW
    assert one.packet(UDP, flow.reverse_key, now=1.0)
    assert one.packet(UDP, key, now=2.0)
    assert one.flows.refresh(flow)
    assert flow.state == states.UDP_OPEN
    one.check()
    assert one.carrier.packets(flow) == (2, 1)


def test_a_flow_that_is_answered_first_is_carried_from_then_on() -> None:
    """The worker sees the question, the answer, and the next question."""
    one = worker()
    key = client_key(1000)
    one.packet(UDP, key)
    flow = one.flows.forward[UDP][key]
    assert not one.packet(UDP, flow.reverse_key)
    assert not one.packet(UDP, key)
    assert (flow.state, one.packet(UDP, key)) == (states.UDP_OPEN, True)


def test_exchanges_of_one_answer_are_not_carried() -> None:
    """`udp_reply`: they end soon."""
    one = worker(web(udp_reply=1.0))
    for _ in range(3):
        assert not one.packet(UDP, client_key(1000))
    assert one.carrier.carried == 0


def test_flows_whose_answers_pass_elsewhere_are_carried_when_they_are_proven() -> None:
    """Up to the client's end: nft learns the client from its FIN, and the program carries later
    ones.
    """
    one = worker(web(direct=True))
    key = client_key(1000)
    sent = (("S", 0), ("A", 100), ("PA", 200), ("A", 300))
    for moment, (flags, ack) in enumerate(sent):
        assert not one.packet(TCP, key, flags, float(moment), seq=moment, ack=ack)
    flow = one.flows.forward[TCP][key]
    assert flow.state == states.ESTABLISHED
    assert one.packet(TCP, key, "A", 10.0, seq=1 << 19, ack=1 << 25)
    one.check()
    assert not one.packet(TCP, key, "FA", 11.0, seq=1 << 20, ack=1 << 26)
    assert flow.state == states.CLIENT_DONE
    one.check()
    assert one.packet(TCP, key, "FA", 11.0, seq=1 << 20, ack=1 << 26)
    assert one.packet(TCP, key, "A", 12.0, seq=(1 << 20) + 1, ack=(1 << 26) + 1)
    one.carrier.sync(12.1)
    assert flow.state == states.TIME_WAIT
    one.check()
    assert one.carrier.carried == 0


def test_a_busy_flow_neither_expires_nor_makes_room() -> None:
    """However long the worker has not seen a packet of it; a silent one does."""
    one = worker(bound=2)
    silent, busy = one.open(1000), one.open(1001)
    one.carrier.sync(0.1)
    assert one.packet(TCP, busy.forward_key, "A", 7000.0)
    one.flows.expire(7500.0)
    assert (silent.state, busy.state) == (states.GONE, states.ESTABLISHED)
    one.check()
    other = one.open(1002, 7500.0)
    assert not one.flows.make_room(TCP, 7600.0)
    assert other.state != states.GONE


def test_the_worker_evicts_no_flow_that_the_program_saw_established() -> None:
    """It believes that none was answered, until it asks."""
    one = worker(bound=4)
    flows = [one.open(port) for port in (1000, 1001)]
    for port in (2000, 2001):
        one.packet(TCP, client_key(port), "S", 0.2)
    for port in range(3000, 3040):
        one.packet(TCP, client_key(port), "S", 5.0)
    assert [flow.state for flow in flows] == [states.ESTABLISHED] * 2
    one.check()


def test_ports_that_are_used_again_begin_another_flow() -> None:
    """The SYN comes before the event that the flow is closed; a later event does no harm."""
    one = worker()
    first = one.open()
    one.finish(first, 1.0)
    second = one.open(now=1.0)
    assert (first.state, second.state) == (states.GONE, states.SYN_SENT)
    one.carrier.sync(1.1)
    assert second.state == states.ESTABLISHED
    one.check()


def test_a_syn_in_a_live_flow_does_not_end_it() -> None:
    """The backend's TCP decides (RFC 5961 section 4.2); the flow is carried as before."""
    one = worker()
    flow = one.open()
    assert not one.packet(TCP, flow.forward_key, "S", 5.0)
    assert one.flows.forward[TCP][flow.forward_key] is flow
    assert flow.state == states.ESTABLISHED
    assert one.packet(TCP, flow.forward_key, "A", 5.0)


def test_a_repeated_syn_after_the_answer_is_the_workers() -> None:
    """The client has not heard it: its ACK is judged by the number that the program saw."""
    one = worker()
    key = client_key(1000)
    one.packet(TCP, key, "S")
    flow = one.flows.forward[TCP][key]
    assert one.packet(TCP, flow.reverse_key, "SA", seq=70)
    assert not one.packet(TCP, key, "S", 1.0)
    assert (flow.state, flow.carried) == (states.SYN_RECEIVED, 0)
    assert not one.packet(TCP, key, "A", 2.0, ack=71 + (1 << 21))
    assert flow.state == states.SYN_RECEIVED
    assert not one.packet(TCP, key, "A", 2.0, ack=71)
    assert (flow.state, one.packet(TCP, key, "A", 3.0)) == (states.ESTABLISHED, True)
    one.check()


@pytest.mark.parametrize("back", [False, True], ids=["client", "backend"])
def test_a_reset_gives_the_flow_to_the_worker_until_it_goes_on(back: bool) -> None:
    """RFC 7857 section 3: a flow that goes on was not reset; it is carried again."""
    one = worker()
    flow = one.open()
    assert not one.packet(TCP, flow.reverse_key if back else flow.forward_key, "R", 1.0)
    assert flow.state == (states.RESET if back else states.CLIENT_RESET)
    one.check()
    assert not one.packet(TCP, flow.forward_key, "A", 2.0, ack=80)
    assert (flow.state, one.packet(TCP, flow.forward_key, "A", 2.0)) == (states.ESTABLISHED, True)
    one.check()


@pytest.mark.parametrize("direct", [False, True], ids=["two-sided", "direct"])
def test_a_forged_reset_changes_nothing(direct: bool) -> None:
    """One with a number that the client would not send: the program saw what it sends."""
    one = worker(web(direct=direct))
    key = client_key(1000)
    if direct:
        for moment, (flags, ack) in enumerate((("S", 0), ("A", 100), ("PA", 200), ("A", 300))):
            one.packet(TCP, key, flags, float(moment), seq=moment, ack=ack)
        flow = one.flows.forward[TCP][key]
        assert one.packet(TCP, key, "PA", 10.0, seq=1 << 19, ack=400)
    else:
        flow = one.open()
        assert one.packet(TCP, flow.reverse_key, "A", 10.0, seq=71, ack=1 << 19)
    for seq in (1 << 31, (1 << 19) + (1 << 25)):
        assert not one.packet(TCP, key, "R", 11.0, seq=seq)
        assert flow.state == states.ESTABLISHED
        assert one.packet(TCP, key, "A", 11.0, seq=1 << 19, ack=401)
    assert not one.packet(TCP, key, "R", 12.0, seq=(1 << 19) + 100)
    assert flow.state == states.CLIENT_RESET
    one.check()


def test_flows_of_a_lost_backend_are_the_workers_at_once() -> None:
    """They end with the client's next packet; the next SYN goes elsewhere, and is carried."""
    one = worker(web(life={"on_down": "reset"}))
    flow = one.open()
    one.carrier.sync(0.1)
    service = one.path.balancer.services.services[0]
    service.pool.apply(flow.translation.backend, Event.CHECK_FAILED)
    one.carrier.sync(0.2)
    assert not one.packet(TCP, flow.reverse_key, "A", 1.0)
    assert not one.packet(TCP, flow.forward_key, "A", 1.0)
    assert flow.state == states.GONE
    one.check()
    assert one.open().translation.backend is not flow.translation.backend
    one.check()


def test_lost_events_are_found_by_asking_all_entries() -> None:
    """A ring that overflows; some flows with each tick."""
    one = worker(entries=3000, room=1, bound=3000)
    flows = [one.open(port) for port in range(1000, 1000 + 6 * CHUNK)]
    assert isinstance(one.maps.reasons, MemoryCounters)
    assert one.maps.reasons.numbers_of[EVENTS_LOST] == len(flows) - 1
    one.carrier.sync(1.0)
    known = [flow for flow in flows if flow.state == states.ESTABLISHED]
    assert 0 < len(known) <= STEPS * CHUNK + 1
    one.settle(1.1)
    assert {flow.state for flow in flows} == {states.ESTABLISHED}
    for flow in flows:
        one.finish(flow, 2.0)
    one.settle(3.0)
    assert {flow.state for flow in flows} == {states.TIME_WAIT}
    one.check()


def test_losses_do_not_pile_up() -> None:
    """While events are lost all the time, two sweeps are due: this one and the next."""
    one = worker(entries=3000, bound=3000)
    for port in range(1000, 1000 + 8 * CHUNK):
        one.open(port)
    one.settle(0.1)
    assert isinstance(one.maps.reasons, MemoryCounters)
    for loss in range(1, 20):
        one.maps.reasons.numbers_of[EVENTS_LOST] = loss
        one.carrier.sync(float(loss))
    ticks = 0
    while not one.carrier.idle:
        one.carrier.sync(20.0)
        ticks += 1
    assert ticks <= 2 * (8 // STEPS + 1)


def test_a_tick_reads_a_bounded_number_of_events() -> None:
    """The others wait for the next one."""
    one = worker(entries=2 * EVENTS, room=2 * EVENTS, bound=2 * EVENTS)
    one.carrier.sync(0.0)  # no event of a predecessor is left
    for port in range(1000, 1000 + EVENTS + 10):
        one.open(port)
    one.carrier.sync(0.1)
    assert one.flows.active == EVENTS
    one.carrier.sync(0.2)
    assert one.flows.active == EVENTS + 10


def test_events_without_room_to_wait_start_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: it reads their entries too."""
    one = worker(entries=3000, room=6000, bound=3000)
    monkeypatch.setattr("paraglider.forward.bpf.events.MOST_WAITING", 10)
    for port in range(1000, 1100):
        one.open(port)
    one.settle(5.0)
    assert one.flows.active == 100
    assert not one.context.events.overflowed


def test_many_events_leave_less_of_a_tick_to_a_sweep() -> None:
    """One step at least, so that it comes to its end."""
    one = worker(entries=3 * EVENTS, room=3 * EVENTS, bound=3 * EVENTS)
    for port in range(1000, 1000 + 2 * EVENTS):
        one.packet(TCP, client_key(port), "S")
    assert isinstance(one.maps.flows[TCP, 4], MemoryMap)
    for events, swept in ((EVENTS, CHUNK), (EVENTS // 3, 3 * CHUNK), (0, STEPS * CHUNK)):
        one.settle(0.1)
        one.carrier.switch(False)
        one.ring.events = [EVENT.pack(EVENT_CLOSED, 4, TCP, 0, 0, bytes(36))] * events
        before = len(one.maps.flows[TCP, 4].content)
        one.carrier.sync(0.2)
        assert before - len(one.maps.flows[TCP, 4].content) == swept
        one.carrier.switch(True)
        one.settle(0.3)


def test_switched_off_the_worker_carries_what_the_program_did() -> None:
    """It knows what became of its flows, and no entry is left; on again, they are carried again."""
    one = worker(web(ports=WIDE))
    flow, closed = one.open(1000), one.open(1001)
    one.finish(closed, 1.0)
    one.carrier.switch(False)
    one.program.attached = False
    one.settle(2.0)
    assert (flow.state, closed.state) == (states.ESTABLISHED, states.TIME_WAIT)
    one.check()
    assert one.carrier.carried == 0
    assert not one.packet(TCP, flow.forward_key, "A", 3.0)
    one.packet(TCP, client_key(1002), "S", 3.0)
    assert one.carrier.carried == 0
    one.program.attached = True
    one.carrier.switch(True)
    one.settle(4.0)
    assert one.packet(TCP, flow.forward_key, "A", 5.0)
    assert one.packet(TCP, flow.reverse_key, "A", 5.0)
    one.check()
    assert one.carrier.carried == 1


def test_services_that_go_back_to_the_worker() -> None:
    """`carrier: worker` after a reload: at once, and nothing is left of their flows; with `bpf`
    again, those that are established are carried as new ones are.
    """
    one = worker()
    flow = one.open()
    (service,) = one.path.balancer.services.services
    one.carrier.configure((), [service])
    assert not one.packet(TCP, flow.forward_key, "A", 1.0)
    one.settle(1.0)
    assert (one.carrier.carried, flow.state) == (0, states.ESTABLISHED)
    one.check()
    assert not one.packet(TCP, client_key(1001), "S", 2.0)
    one.carrier.configure([service], ())
    one.settle(2.0)
    assert one.packet(TCP, flow.forward_key, "A", 2.0)
    assert not one.packet(TCP, client_key(1002), "S", 2.0)
    assert one.carrier.carried == 2
    one.check()


def test_expired_flows_leave_nothing() -> None:
    """Of any kind; the map and the table are empty at the end."""
    one = worker(web(ports=ALL_PORTS), timeouts=FlowTimeouts(syn=5, established=50, udp=5))
    one.open(1000)
    one.packet(TCP, client_key(1001), "S")
    for _ in range(3):
        one.packet(UDP, client_key(1002))
    assert one.carrier.carried == 3
    for now in (10.0, 100.0):
        one.carrier.sync(now)
        one.flows.expire(now)
        one.check()
    assert len(one.flows) == one.carrier.carried == 0


def test_closed_is_a_flag_of_both_fins() -> None:
    """As the program sets it; the model here does the same."""
    one = worker()
    flow = one.open()
    one.finish(flow, 0.0)
    assert one.entry(flow).flags == REPLIED | ESTABLISHED | FIN_OUT | FIN_BACK | CLOSED

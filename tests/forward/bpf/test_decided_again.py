"""Tests of ``paraglider.forward.bpf``: the program gives the entry of a closed connection to the
next one with the same ports, to whichever backend, and the worker hears of it later.
"""

from __future__ import annotations

import pytest
from bpf_deciding import OPEN, OVER, DecidingProgram
from bpf_world import WIDE, client_key, web
from journals import memory

from paraglider.bpf.layout import (
    CLOSED,
    DIRECT,
    EVENT,
    EVENT_ESTABLISHED,
)
from paraglider.core.flow import TCP
from paraglider.core.flow_states import CLIENT_RESET, RESET
from paraglider.core.journal import Journal
from paraglider.core.restore import Translations, restore
from paraglider.forward.bpf.closed import LINGER
from paraglider.forward.bpf.compacting import AGE
from paraglider.forward.bpf.entry import FlowEntry
from paraglider.forward.bpf.events import PORTION

HOW = {
    "origin": {"ports": ((80, 80),)},
    "alias": {"ports": WIDE},
    "one-sided": {"ports": ((80, 80),), "direct": True},
    "dsr": {"ports": ((80, 80),), "direct": True, "routed": True, "method": "dsr"},
}
KEY = client_key(1000)


class Kernel(DecidingProgram):
    """A program that decides for a service with two backends, always about the same ports."""

    def __init__(self, how: str) -> None:
        service = web(**HOW[how])
        super().__init__(service)
        self.translations = [service.translations[each] for each in service.pool.backends]
        self.keys = [KEY, KEY]
        self.direct = self.translations[0].direct

    def give_way(self, to: int) -> None:
        """See ``DecidingProgram``: the alias of the flow before goes."""
        for translation in self.translations:
            self.entries().pop(translation.reverse_key(KEY), None)

    def delay(self) -> None:
        """Events of other connections come before the next one, so it is in the next portion."""
        translation = self.translations[0]
        flags = OPEN | (DIRECT if translation.direct else 0)
        while len(self.ring.events) < PORTION:
            key = client_key(2000 + len(self.ring.events) % 100)
            event = EVENT.pack(EVENT_ESTABLISHED, 4, TCP, flags, translation.slot, key)
            self.ring.events.append(event)

    def found(self) -> tuple[list[int], list[int], list[int]]:
        """Of each backend: connections so far, live flows, flows that are closed."""
        backends = [each.backend for each in self.translations]
        live = [each.flows + each.opening for each in backends]
        return [each.conns for each in backends], live, [each.closing for each in backends]


@pytest.fixture(params=HOW)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """A program whose service has one method or another."""
    return Kernel(request.param)


others = pytest.mark.parametrize("to", [0, 1], ids=["same-backend", "other-backend"])


@others
@pytest.mark.parametrize("known", [True, False], ids=["flow", "no-flow"])
def test_all_within_a_tick(kernel: Kernel, to: int, known: bool) -> None:
    """Each connection is counted once, at its backend, and the last has the flow."""
    kernel.opens(0, OPEN if known else OVER)
    kernel.one.carrier.sync(0.1)
    if known:
        kernel.closes(0)
    kernel.opens(1, OVER, 0.1)
    kernel.opens(to, OPEN, 0.1)
    kernel.one.carrier.sync(0.2)
    assert kernel.found() == ([1 + (to == 0), 1 + (to == 1)], [to == 0, to == 1], [0, 0])
    kernel.check(to)
    kernel.one.carrier.sync(LINGER + 1)
    kernel.check(to)


@others
def test_all_are_over_within_a_tick(kernel: Kernel, to: int) -> None:
    """The flow of the first, which the worker has, ends with it."""
    kernel.opens(0, OPEN)
    kernel.one.carrier.sync(0.1)
    kernel.closes(0)
    kernel.opens(to, OVER)
    kernel.one.carrier.sync(0.2)
    assert kernel.found() == ([1 + (to == 0), to], [0, 0], [0, 0])
    assert (len(kernel.one.flows), KEY in kernel.entries()) == (0, True)
    kernel.one.carrier.sync(0.2 + LINGER)
    assert kernel.entries() == {}


@others
def test_the_end_is_heard_before_the_opening(kernel: Kernel, to: int) -> None:
    """In one portion of events or reading and the next: the entry is the new connection's, and is
    not removed as the closed one's.
    """
    one = kernel.one
    kernel.opens(0, OPEN)
    one.carrier.sync(0.1)
    kernel.closes(0)
    kernel.delay()
    kernel.opens(to)
    one.carrier.sync(0.2)
    kernel.check(to)
    kernel.set(to, OPEN, 0.3)
    kernel.tell(EVENT_ESTABLISHED, to, OPEN)
    one.carrier.sync(0.3)
    kernel.closes(to)
    opened, late = kernel.ring.events, kernel.ring.events.__class__()
    kernel.ring.events = late
    kernel.opens(1 - to)
    late, kernel.ring.events = kernel.ring.events, opened
    one.carrier.sync(0.4)
    assert KEY in kernel.entries()
    kernel.ring.events = late
    one.carrier.sync(0.5)
    kernel.check(1 - to)
    assert kernel.found()[1] == [to == 1, to == 0]
    one.carrier.sync(0.6 + LINGER)
    kernel.check(1 - to)


@pytest.mark.parametrize("readings", [1, 2])
def test_the_next_is_over_before_the_end_is_heard(kernel: Kernel, readings: int) -> None:
    """Its entry stays for a while as that of any other closed connection, and its alias goes."""
    one = kernel.one
    kernel.opens(0, OPEN)
    one.carrier.sync(0.1)
    kernel.closes(0)
    kernel.delay()
    kernel.opens(1, OVER)
    if readings == 2:
        late, kernel.ring.events = kernel.ring.events[PORTION:], kernel.ring.events[:PORTION]
        one.carrier.sync(0.2)
        kernel.ring.events = late
    one.carrier.sync(0.3)
    assert kernel.found() == ([1, 1], [0, 0], [0, 0])
    assert len(kernel.entries()) == 1 + kernel.translations[1].aliased
    one.carrier.sync(0.4 + LINGER)
    assert kernel.entries() == {}


@others
def test_the_opening_is_lost(kernel: Kernel, to: int) -> None:
    """A sweep finds the entry: the closed flow goes, and the new one is counted."""
    one = kernel.one
    kernel.opens(0, OPEN)
    one.carrier.sync(0.1)
    kernel.closes(0)
    one.carrier.sync(0.2)
    assert kernel.found() == ([1, 0], [0, 0], [1, 0])
    kernel.opens(to, OPEN)
    kernel.ring.events.clear()
    one.program.lose_event()
    one.settle(1.5)
    assert kernel.found() == ([1 + (to == 0), to], [to == 0, to == 1], [0, 0])
    kernel.check(to)


def test_the_opening_is_lost_and_the_sweep_comes_late(kernel: Kernel) -> None:
    """The connection is idle until then, and keeps its entry."""
    one = kernel.one
    kernel.opens(0, OVER)
    one.carrier.sync(0.1)
    kernel.opens(1, OPEN, 0.5)
    kernel.ring.events.clear()
    one.carrier.sync(LINGER + 0.2)
    assert FlowEntry.unpack(kernel.entries()[KEY]).flags & CLOSED == 0
    one.program.lose_event()
    one.settle(LINGER + 1.5)
    assert kernel.found() == ([1, 1], [0, 1], [0, 0])
    kernel.check(1)


def test_all_events_are_lost(kernel: Kernel) -> None:
    """The end of the first one too: the entry leads to another backend, so it is not the flow's."""
    one = kernel.one
    kernel.opens(0, OPEN)
    one.carrier.sync(0.1)
    kernel.opens(1, OPEN)
    kernel.ring.events.clear()
    one.program.lose_event()
    one.settle(1.5)
    assert kernel.found() == ([1, 1], [0, 1], [0, 0])
    kernel.check(1)


def test_an_entry_that_is_read_before_the_events(kernel: Kernel) -> None:
    """By `flows`, or before the flow expires: the new connection's entry stays."""
    one = kernel.one
    kernel.opens(0, OPEN)
    one.carrier.sync(0.1)
    kernel.closes(0)
    kernel.opens(1, OPEN)
    (flow,) = one.flows.forward[TCP].values()
    assert one.carrier.packets(flow) is None
    assert KEY in kernel.entries()
    one.carrier.sync(0.2)
    assert kernel.found() == ([1, 1], [0, 1], [0, 0])
    kernel.check(1)


@others
@pytest.mark.parametrize("early", [0, 1], ids=["first-entry-read", "second-entry-read"])
def test_a_sweep_before_the_events(kernel: Kernel, to: int, early: int) -> None:
    """It has counted one of the connections, whose event counts nothing more."""
    one = kernel.one
    if early:
        kernel.opens(0, OVER)
    kernel.opens(to if early else 0, OPEN)
    late, kernel.ring.events = kernel.ring.events, []
    one.program.lose_event()
    one.settle(1.5)
    kernel.ring.events = late
    if not early:
        kernel.closes(0)
        kernel.opens(to, OPEN)
    one.settle(1.6)
    assert kernel.found() == ([1 + (to == 0), to], [to == 0, to == 1], [0, 0])
    kernel.check(to)


#: methods, and whether the backend's packet comes: it passes here with some of them
SENDERS = [
    (how, back) for how in HOW for back in (False, True) if not (back and Kernel(how).direct)
]


@others
@pytest.mark.parametrize("known", ["end", "nothing", "end, and the opening is lost"])
@pytest.mark.parametrize(("kernel", "back"), SENDERS, indirect=["kernel"])
def test_a_reset_within_the_tick(kernel: Kernel, to: int, known: str, back: bool) -> None:
    """It is the new connection's, whatever the worker has heard of the end of the first: it reaches
    that one's backend or client, and ends its flow.
    """
    one, translation = kernel.one, kernel.translations[to]
    kernel.opens(0, OPEN)
    one.carrier.sync(0.1)
    kernel.closes(0)
    if known != "nothing":
        one.carrier.sync(0.2)
    kernel.opens(to, OPEN, 0.3)
    if "lost" in known:
        kernel.ring.events.clear()
    assert not one.packet(TCP, translation.reverse_key(KEY) if back else KEY, "R", 0.3)
    (flow,) = one.flows.forward[TCP].values()
    assert (flow.translation, flow.state) == (translation, RESET if back else CLIENT_RESET)
    packets = [(each.packets_out, each.packets_back) for each in kernel.translations]
    assert packets == [((not back), back) if at == to else (0, 0) for at in range(2)]
    one.carrier.sync(0.4)
    assert kernel.found() == ([1 + (to == 0), to], [0, 0], [to == 0, to == 1])


def test_a_compact_flow_is_replaced() -> None:
    """It is expanded by the event alone, since the entry is another flow's by now."""
    kernel = Kernel("origin")
    one = kernel.one
    services = one.path.balancer.services.services
    restore(one.flows, Journal(memory(100)), Translations(services), 0.0)
    kernel.opens(0, OPEN)
    one.settle(0.1)
    one.settle(0.2 + AGE)
    assert one.compact == {KEY}
    kernel.closes(0)
    kernel.opens(1, OPEN)
    one.carrier.sync(0.3 + AGE)
    assert kernel.found() == ([1, 1], [0, 1], [0, 0])
    assert one.compact == set()
    kernel.check(1)

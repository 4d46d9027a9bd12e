"""Tests of ``paraglider.forward.bpf``: a client uses one port for services with the same backend
port, one after the other. The replies of both flows have the same key: the closed flow gives way.
"""

from __future__ import annotations

import pytest
from bpf_deciding import OPEN, OVER, DecidingProgram
from bpf_world import client_key, web
from packets import V4

from paraglider.bpf.layout import (
    CLOSED,
    DECIDED,
)
from paraglider.core.flow import TCP
from paraglider.core.flow_states import CLIENT_RESET, RESET, TIME_WAIT
from paraglider.forward.bpf.closed import LINGER
from paraglider.forward.bpf.entry import FlowEntry

VIPS = (V4.vip, V4.other_vip, "192.168.0.13")
KEYS = tuple(client_key(1000, vip=vip) for vip in VIPS)


class Kernel(DecidingProgram):
    """A program that decides for three services with the same two backends; the first has the
    origins, so flows of the others have an alias. A number is that of a service.
    """

    def __init__(self) -> None:
        services = [web(name=f"web{at}", vip=vip) for at, vip in enumerate(VIPS)]
        super().__init__(*services)
        #: those of the services to the first backend
        self.translations = [each.translations[each.pool.backends[0]] for each in services]
        self.keys = KEYS
        assert [each.aliased for each in self.translations] == [False, True, True]

    @property
    def reply_key(self) -> bytes:
        """The key of the backend's replies, of whichever service."""
        return self.translations[0].reverse_key(KEYS[0])

    def give_way(self, to: int) -> None:
        """See ``DecidingProgram``: as `end_closed` does."""
        before = self.entries().get(self.reply_key)
        if self.translations[to].aliased and before is not None:
            slots = [each.slot for each in self.translations]
            closed = KEYS[slots.index(FlowEntry.unpack(before).slot)]
            assert FlowEntry.unpack(self.entries().pop(closed)).flags & CLOSED

    def conns(self) -> list[int]:
        """The connections of each service to the backend so far."""
        return [each.backend.conns for each in self.translations]


@pytest.fixture
def kernel() -> Kernel:
    """A program with three services."""
    return Kernel()


after_another = pytest.mark.parametrize(
    ("before", "after"),
    [(0, 1), (1, 0), (1, 2)],
    ids=["origin-then-alias", "alias-then-origin", "alias-then-alias"],
)


def follow(kernel: Kernel, before: int, after: int) -> None:
    """The flow of ``before`` opens and closes, and the worker knows that; then that of ``after``
    opens.
    """
    kernel.opens(before, OPEN)
    kernel.one.carrier.sync(0.1)
    kernel.closes(before)
    kernel.one.carrier.sync(0.2)
    kernel.opens(after, OPEN, 0.3)


@after_another
def test_a_flow_that_is_closed(kernel: Kernel, before: int, after: int) -> None:
    """The worker knows that: the next one has its place at once, not after `timeouts.closed`."""
    one = kernel.one
    follow(kernel, before, after)
    one.carrier.sync(0.4)
    kernel.check(after)
    assert sum(kernel.conns()) == 2
    one.carrier.sync(0.5 + LINGER)
    kernel.check(after)


@after_another
def test_a_flow_whose_end_is_heard_after_the_opening(
    kernel: Kernel, before: int, after: int
) -> None:
    """Events of one reading: openings are handled first."""
    one = kernel.one
    kernel.opens(before, OPEN)
    one.carrier.sync(0.1)
    kernel.closes(before, 0.1)
    kernel.opens(after, OPEN, 0.1)
    one.carrier.sync(0.2)
    kernel.check(after)
    assert sum(kernel.conns()) == 2
    for now in (0.3, 0.4, 0.5 + LINGER):
        one.carrier.sync(now)
    kernel.check(after)


@after_another
def test_a_flow_without_an_object(kernel: Kernel, before: int, after: int) -> None:
    """Its entry stays for a while; when it goes, the new flow's alias does not go with it."""
    one = kernel.one
    kernel.opens(before, OVER)
    one.carrier.sync(0.1)
    kernel.opens(after, OPEN, 0.1)
    one.carrier.sync(0.2)
    one.carrier.sync(0.5 + LINGER)
    kernel.check(after)
    assert sum(kernel.conns()) == 2


def test_an_alias_that_a_worker_has_replaced(kernel: Kernel) -> None:
    """The closed flow's entry stays, and goes alone."""
    one = kernel.one
    kernel.opens(1, OVER)
    one.carrier.sync(0.1)
    one.packet(TCP, KEYS[2], "S", 0.2)
    (flow,) = one.flows.forward[TCP].values()
    assert flow.reverse_key == kernel.reply_key
    one.carrier.sync(0.5 + LINGER)
    kernel.check(2)


@after_another
@pytest.mark.parametrize("state", [TIME_WAIT, RESET, CLIENT_RESET])
def test_the_opening_is_lost(kernel: Kernel, before: int, after: int, state: int) -> None:
    """A sweep finds the entry."""
    one = kernel.one
    kernel.opens(before, OPEN)
    one.carrier.sync(0.1)
    (flow,) = one.flows.forward[TCP].values()
    one.flows.move(flow, state, 0.2)
    kernel.opens(after, OPEN, 0.3)
    kernel.ring.events.clear()
    one.program.lose_event()
    one.settle(1.5)
    kernel.check(after)


@after_another
def test_a_reset_of_the_backend_within_the_tick(kernel: Kernel, before: int, after: int) -> None:
    """The client gets it from the VIP that it has a connection to."""
    one = kernel.one
    follow(kernel, before, after)
    assert not one.packet(TCP, kernel.reply_key, "R", 0.3)
    (flow,) = one.flows.forward[TCP].values()
    assert (flow.translation, flow.state) == (kernel.translations[after], RESET)
    assert [each.packets_back for each in kernel.translations] == [at == after for at in range(3)]


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0)])
def test_a_flow_that_is_open(kernel: Kernel, before: int, after: int) -> None:
    """It stays, and the entry of the other goes, with its alias alone."""
    one = kernel.one
    kernel.opens(before, OPEN)
    one.carrier.sync(0.1)
    kernel.opens(after, DECIDED, 0.2)
    one.carrier.sync(0.3)
    kernel.check(before)
    assert kernel.conns()[after] == 0

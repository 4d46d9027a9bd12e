"""Tests of ``paraglider.forward.bpf.entry``: what an entry says, in times and states."""

from __future__ import annotations

import pytest
from bpf_world import client_key, web
from hypothesis import given
from hypothesis import strategies as st

from paraglider.bpf.layout import (
    CLOSED,
    DECIDED,
    DIRECT,
    ESTABLISHED,
    FIN_BACK,
    FIN_OUT,
    FLOW,
    REPLIED,
    TICK_SHIFT,
)
from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, UDP, Flow
from paraglider.forward.bpf.entry import (
    LASTING,
    NONE,
    ONE_SIDED_FLAGS,
    TWO_SIDED_FLAGS,
    FlowEntry,
    first_state,
    is_later,
    seen_states,
    ticks_of,
)

TICK = (1 << TICK_SHIFT) / 1e9
OPEN = REPLIED | ESTABLISHED


@given(seconds=st.floats(0, 5e8))
def test_a_tick_is_never_late(seconds: float) -> None:
    """A flow is not kept for longer than its time, and not by more than a tick for less."""
    seen = FlowEntry(ticks_of(seconds), 0).seen
    assert seen <= seconds + 1e-6
    assert seconds < seen + TICK + 1e-6


def test_an_entry_is_what_the_program_writes() -> None:
    """In the order of the layout."""
    entry = FlowEntry(1, 2, 3, 4, 5, 6, 7)
    assert FLOW.unpack(entry.pack()) == (1, 2, 3, 4, 5, 6, 7)
    assert FlowEntry.unpack(entry.pack()) == entry


def test_what_is_carried() -> None:
    """Both directions: while nothing is closed but one half; one direction: what is proven."""
    carried = {state for state, flags in enumerate(TWO_SIDED_FLAGS) if flags != NONE}
    names = {states.STATE_NAMES[state] for state in carried}
    assert names == {
        *("syn-sent", "established", "fin-client", "fin-backend"),
        *("udp-new", "udp-answered", "udp"),
    }
    one_sided = {state for state, flags in enumerate(ONE_SIDED_FLAGS) if flags != NONE}
    assert {states.STATE_NAMES[state] for state in one_sided} == {
        *("syn-sent", "unconfirmed", "established", "client-done"),
        *("udp-new", "udp"),
    }
    assert all(ONE_SIDED_FLAGS[state] & DIRECT for state in one_sided)
    assert carried >= LASTING


#: protocol, state, flags of the entry, packets out and back, states that the flow has passed
READ = [
    ("nothing yet", TCP, states.SYN_SENT, 0, 0, 0, []),
    ("answered", TCP, states.SYN_SENT, REPLIED, 0, 1, [states.SYN_RECEIVED]),
    ("established", TCP, states.SYN_SENT, OPEN, 1, 1, [states.ESTABLISHED]),
    (
        "established, and the client has sent all",
        *(TCP, states.SYN_SENT, OPEN | FIN_OUT, 2, 1),
        [states.ESTABLISHED, states.FIN_CLIENT],
    ),
    (
        "a whole connection",
        *(TCP, states.SYN_SENT, OPEN | FIN_OUT | FIN_BACK | CLOSED, 5, 5),
        [states.ESTABLISHED, states.TIME_WAIT],
    ),
    ("no news", TCP, states.ESTABLISHED, OPEN, 9, 9, []),
    ("the backend's FIN", TCP, states.ESTABLISHED, OPEN | FIN_BACK, 9, 9, [states.FIN_BACKEND]),
    ("no news of a half-closed one", TCP, states.FIN_CLIENT, OPEN | FIN_OUT, 9, 9, []),
    (
        "the other FIN",
        *(TCP, states.FIN_CLIENT, OPEN | FIN_OUT | FIN_BACK | CLOSED, 9, 9),
        [states.TIME_WAIT],
    ),
    ("datagrams without answer", UDP, states.UDP_NEW, 0, 5, 0, []),
    ("an answer", UDP, states.UDP_NEW, 0, 0, 1, [states.UDP_ANSWERED]),
    (
        "datagrams each way",
        *(UDP, states.UDP_NEW, 0, 5, 5),
        [states.UDP_ANSWERED, states.UDP_OPEN],
    ),
    ("no news of datagrams", UDP, states.UDP_OPEN, 0, 5, 5, []),
]


@pytest.mark.parametrize(
    ("protocol", "state", "flags", "out", "back", "expected"),
    [row[1:] for row in READ],
    ids=[row[0] for row in READ],
)
def test_what_an_entry_says_of_a_flow(
    protocol: int, state: int, flags: int, out: int, back: int, expected: list[int]
) -> None:
    """The flow moves through each state in turn, so that everything that counts is counted."""
    translation = next(iter(web().translations.values()))
    key = client_key(1000)
    flow = Flow(protocol, key, translation.reverse_key(key), translation, state, 0.0)
    assert seen_states(flow, flags, out, back) == expected


def test_the_first_state_of_a_flow_that_only_its_entry_knows() -> None:
    """It is brought up to date by the entry from there."""
    assert first_state(TCP, FlowEntry(0, 0)) == states.SYN_SENT
    assert first_state(TCP, FlowEntry(0, OPEN | FIN_OUT)) == states.ESTABLISHED
    assert first_state(UDP, FlowEntry(0, 0)) == states.UDP_NEW


#: one-sided: protocol, flags besides DIRECT, packets, the flow's state
ONE_SIDED = [
    (TCP, DECIDED, 1, states.SYN_SENT),
    (TCP, DECIDED | REPLIED, 2, states.UNCONFIRMED),
    (TCP, OPEN, 9, states.ESTABLISHED),
    (TCP, DECIDED | REPLIED | FIN_OUT, 3, states.CLIENT_DONE),
    (TCP, FIN_OUT, 1, states.CLIENT_DONE),
    (TCP, OPEN | FIN_OUT | CLOSED, 9, states.TIME_WAIT),
    (UDP, DECIDED, 1, states.UDP_NEW),
    (UDP, DECIDED, 2, states.UDP_OPEN),
    (UDP, 0, 0, states.UDP_NEW),
    (UDP, 0, 1, states.UDP_OPEN),
]


@pytest.mark.parametrize(("protocol", "flags", "packets", "state"), ONE_SIDED)
def test_the_state_of_a_one_sided_flow(protocol: int, flags: int, packets: int, state: int) -> None:
    """By its entry, for a flow that is added, or from any state before; its number of packets back
    is none.
    """
    entry = FlowEntry(0, DIRECT | flags, 0, 1, 0, packets, 77)
    assert first_state(protocol, entry) == state
    assert entry.packets == (packets, 0)
    translation = next(iter(web(direct=True).translations.values()))
    key = client_key(1000)
    first = states.SYN_SENT if protocol == TCP else states.UDP_NEW
    for before in {first, state}:
        flow = Flow(protocol, key, translation.reverse_key(key), translation, before, 0.0)
        passed = seen_states(flow, DIRECT | flags, packets, 0)
        assert (passed[-1:] or [before]) == [state]
        assert states.FIN_CLIENT not in passed


@pytest.mark.parametrize(
    ("entry", "later"),
    [
        (None, False),
        (FlowEntry(0, DECIDED | OPEN | CLOSED, slot=5), False),
        (FlowEntry(0, DECIDED | OPEN | CLOSED, slot=6), True),
        (FlowEntry(0, DECIDED | OPEN, slot=5), True),
        (FlowEntry(0, DECIDED, slot=6), True),
    ],
)
def test_an_entry_of_a_later_connection(entry: FlowEntry | None, later: bool) -> None:
    """Than a closed one with the translation 5, by state or translation."""
    assert is_later(None if entry is None else entry.pack(), 5) == later

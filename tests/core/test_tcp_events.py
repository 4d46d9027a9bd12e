"""Events of segments: by flags, sequence and acknowledgment numbers."""

from __future__ import annotations

import struct

import pytest

from paraglider.core import flow_states as states
from paraglider.core.flow import TCP, Flow
from paraglider.core.flow_states import (
    B_ACK,
    B_FIN,
    B_RST,
    B_SYN_ACK,
    C_ACK,
    C_FIN,
    C_PROOF,
    C_RST,
    C_SYN,
    GROWTHS,
    UNSEEN_WINDOW,
    WINDOW,
)
from paraglider.core.packet import ACK, FIN, RST, SYN
from paraglider.core.pool import Backend
from paraglider.core.tcp_events import backend_event, client_event
from paraglider.core.translation import Translation

NOTHING = -1
TOP = 1 << 32


def segment(flags: int, sequence: int = 0, acknowledged: int = 0) -> bytearray:
    """A TCP header without options."""
    numbers = (sequence % TOP, acknowledged % TOP)
    return bytearray(struct.pack("!HHIIBBHHH", 40000, 80, *numbers, 0x50, flags, 1000, 0, 0))


def flow_in(state: int, *, expected: int = 0, progress: int = 0, proof: int = 0) -> Flow:
    """A flow of which these numbers are known."""
    translation = Translation(bytes(4), 0, Backend("a", bytes(4)))
    flow = Flow(TCP, bytes(12), bytes(12), translation, state, 1.0)
    flow.expected, flow.progress, flow.proof = expected, progress, proof
    return flow


def by_client(
    flow: Flow, buf: bytearray, *, direct: bool = False, now: float = 2.0, unseen: bool = False,
    before: int = 0,
) -> int:  # fmt: skip
    """The event of a client's segment."""
    return client_event(flow, buf, 0, direct, unseen, now, before)


@pytest.mark.parametrize(
    ("flags", "event"),
    [
        (SYN, C_SYN),
        (SYN | ACK, NOTHING),
        (SYN | FIN, NOTHING),
        (ACK, C_ACK),
        (FIN | ACK, C_FIN),
        (0, NOTHING),
    ],
)
def test_the_client_by_flags(flags: int, event: int) -> None:
    """Events of a live flow; combinations that no TCP sends are no event."""
    assert by_client(flow_in(states.ESTABLISHED), segment(flags)) == event


@pytest.mark.parametrize("expected", [5000, 10, TOP - 10])
@pytest.mark.parametrize(
    ("off", "event"),
    [(0, C_RST), (WINDOW - 1, C_RST), (1 - WINDOW, C_RST), (WINDOW, NOTHING), (TOP // 2, NOTHING)],
)
def test_a_reset_counts_near_what_the_backend_expects(expected: int, off: int, event: int) -> None:
    """Also if the numbers wrap; a RST together with a SYN is a RST."""
    for flags in (RST, RST | ACK, RST | SYN):
        flow = flow_in(states.ESTABLISHED, expected=expected)
        assert by_client(flow, segment(flags, expected + off)) == event


def test_what_acknowledges_the_backends_syn_is_proof() -> None:
    """Only a client that receives from the backend knows the number; a FIN with it counts too."""
    flow = flow_in(states.SYN_RECEIVED, progress=777_777)
    assert by_client(flow, segment(ACK, acknowledged=777_777)) == C_PROOF
    assert by_client(flow, segment(FIN | ACK, acknowledged=777_777)) == C_FIN
    assert by_client(flow, segment(ACK, acknowledged=777_777 + WINDOW)) == NOTHING
    assert by_client(flow, segment(0, acknowledged=777_777)) == NOTHING


def test_data_after_a_reset_is_proof_where_the_flow_was_established() -> None:
    """RFC 7857 section 2.2; one that never was does not come back."""
    for state in (states.RESET, states.CLIENT_RESET):
        assert by_client(flow_in(state, proof=GROWTHS), segment(ACK)) == C_PROOF
        assert by_client(flow_in(state), segment(ACK)) == C_ACK


def test_one_sided_growth_over_time_is_proof() -> None:
    """The client's numbers must grow GROWTHS times, each in a later packet."""
    flow = flow_in(states.SYN_SENT)
    assert by_client(flow, segment(ACK, 100, 200), direct=True) == C_ACK
    flow.state = states.UNCONFIRMED
    assert by_client(flow, segment(ACK, 100, 200), direct=True) == C_ACK  # says nothing new
    assert by_client(flow, segment(ACK, 150, 200), direct=True, now=flow.seen) == C_ACK  # not later
    events = [
        by_client(flow, segment(ACK, 150 + turn, 200), direct=True, now=2.0 + turn)
        for turn in range(1, GROWTHS + 1)
    ]
    assert events == [C_ACK] * (GROWTHS - 1) + [C_PROOF]


def test_one_sided_end() -> None:
    """After the client's FIN an ACK of one number more is the backend's FIN, acknowledged."""
    flow = flow_in(states.ESTABLISHED, expected=100)
    assert by_client(flow, segment(FIN | ACK, 100, 900), direct=True) == C_FIN
    flow.state = states.CLIENT_DONE
    assert by_client(flow, segment(ACK, 101, 900), direct=True) == C_ACK
    assert by_client(flow, segment(ACK, 101, 901), direct=True) == C_PROOF


def test_one_sided_a_fin_from_elsewhere_is_nothing() -> None:
    """A client that does not know the numbers cannot end a flow."""
    flow = flow_in(states.ESTABLISHED, expected=100)
    assert by_client(flow, segment(FIN | ACK, 100 + UNSEEN_WINDOW, 900), direct=True) == NOTHING
    assert flow.expected == 100


def test_one_sided_where_packets_pass_unseen() -> None:
    """More than any window may have passed: a FIN counts from anywhere, and moves the number as
    data does; a RST counts as far as a forger's guess rarely is, and farther as a FIN.
    """
    for off in (100, UNSEEN_WINDOW, TOP // 2):
        for flags, event in ((ACK, C_ACK), (FIN | ACK, C_FIN)):
            flow = flow_in(states.ESTABLISHED, expected=100, proof=GROWTHS)
            assert by_client(flow, segment(flags, 100 + off), direct=True, unseen=True) == event
            assert flow.expected == 100 + off
    for off, event in ((UNSEEN_WINDOW - 1, C_RST), (UNSEEN_WINDOW, C_FIN), (TOP // 2, C_FIN)):
        flow = flow_in(states.ESTABLISHED, expected=100, proof=GROWTHS)
        assert by_client(flow, segment(RST, 100 + off), direct=True, unseen=True) == event


@pytest.mark.parametrize("direct", [False, True])
def test_either_of_two_numbers_is_near(direct: bool) -> None:
    """The worker's or the carrier's, of which one may be old; none means that there is one only."""
    far, window = 1 << 30, UNSEEN_WINDOW if direct else WINDOW
    for before, event in ((0, NOTHING), (far, C_RST), (far - window, NOTHING)):
        flow = flow_in(states.ESTABLISHED, expected=100, proof=GROWTHS)
        assert by_client(flow, segment(RST, far), direct=direct, before=before) == event


@pytest.mark.parametrize(
    ("flags", "event"),
    [
        (RST, B_RST),
        (RST | ACK, B_RST),
        (SYN | ACK, B_SYN_ACK),
        (ACK, B_ACK),
        (FIN | ACK, B_FIN),
        (SYN, NOTHING),
        (FIN, NOTHING),
        (0, NOTHING),
    ],
)
def test_the_backend_by_flags(flags: int, event: int) -> None:
    """Segments of a backend are plausible; one without ACK is no event."""
    assert backend_event(flow_in(states.SYN_SENT), segment(flags), 0) == event


def test_the_backends_numbers_are_kept() -> None:
    """The number that it expects and the one that acknowledges its SYN are stored, also if they
    wrap.
    """
    flow = flow_in(states.SYN_SENT)
    backend_event(flow, segment(SYN | ACK, TOP - 1, 4321), 0)
    assert (flow.expected, flow.progress) == (4321, 0)
    backend_event(flow, segment(ACK, 5, 5432), 0)
    assert (flow.expected, flow.progress) == (5432, 0)

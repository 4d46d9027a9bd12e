"""States of flows: what moves a flow from one to the next, who makes room first, what counts.

Every rule is a row of a table here, and nothing else moves a TCP flow. ``TWO_SIDED`` is for flows
whose packets pass in both directions (nat), ``ONE_SIDED`` for those whose answers go past the
balancer (nat with ``return: direct``, dsr). A pair that is not in a state's row changes nothing.

            SYN_SENT ─▶ SYN_RECEIVED ─▶ ESTABLISHED ─▶ FIN_CLIENT  ─▶ LAST_ACK         ─▶ TIME_WAIT
                                             │     └─▶ FIN_BACKEND ─▶ LAST_ACK_BACKEND ─▶ TIME_WAIT
                                             └─▶ RESET, CLIENT_RESET (and back, RFC 7857 section 3)
  one-sided SYN_SENT ─▶ UNCONFIRMED ─▶ ESTABLISHED ─▶ CLIENT_DONE ─▶ TIME_WAIT

Half-closed flows live as established ones do (RFC 5382 REQ-5 speaks of half-open ones). A flow is
closed when both FINs were seen and the second was acknowledged, or by RST: it is kept for a while,
and makes room for any other.

An event is a kind of segment of one side, as far as it is believed:

* C_PROOF is an ACK that says more than C_ACK. While a flow opens, two-sided: it acknowledges the
  SYN that the backend sent, which only one who hears the backend can. One-sided: what the client
  sent and acknowledged has grown for the time GROWTHS, each time later than the packet before.
  After a RST: of a flow that was established. After the client's FIN, one-sided: it acknowledges
  one number more than the FIN did, as the backend's FIN is counted.
* C_RST is a RST of the client within WINDOW of the sequence number that the backend expects, as
  far as that is known; one from elsewhere in the space of numbers is no event. Whoever guesses has
  one chance in 2,048, and the backend's answer to a guess within its window (RFC 5961 section 3.2:
  a challenge ACK) brings the flow back.
* What a backend sends is believed: only hosts behind the balancer have its address.

A SYN moves no live flow. It goes to the flow's own backend, whose TCP decides (RFC 5961 section
4.2): with a challenge ACK where the connection lives, with RST or as a new connection where not.

Rules: numbers are those of the journal on disk (``journal``), so they never change their meaning;
a new state takes a new number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SYN_SENT: Final = 0  # the client's SYN was seen
SYN_RECEIVED: Final = 1  # the backend answered it
ESTABLISHED: Final = 2
LAST_ACK: Final = 3  # both FINs were seen, the client has yet to acknowledge the backend's
UDP_NEW: Final = 4  # no answer yet
UDP_OPEN: Final = 5  # the client went on after the answer; one-sided: a second packet
ICMP_OPEN: Final = 6
GONE: Final = 7  # in no table
UNCONFIRMED: Final = 8  # one-sided: the client went on, and may not hear the backend at all
FIN_CLIENT: Final = 9  # half-closed: the client has sent all that it has
FIN_BACKEND: Final = 10  # half-closed: the backend has
TIME_WAIT: Final = 11  # closed
RESET: Final = 12  # closed by a RST of the backend
CLIENT_RESET: Final = 13  # closed by a RST that may be the client's
UDP_ANSWERED: Final = 14  # one exchange
LAST_ACK_BACKEND: Final = 15  # both FINs were seen, the backend has yet to acknowledge
CLIENT_DONE: Final = 16  # one-sided: the client's FIN was seen, the backend's cannot be

STATE_NAMES: Final = (
    "syn-sent",
    "syn-received",
    "established",
    "last-ack",
    "udp-new",
    "udp",
    "icmp",
    "gone",
    "unconfirmed",
    "fin-client",
    "fin-backend",
    "time-wait",
    "reset",
    "client-reset",
    "udp-answered",
    "last-ack-backend",
    "client-done",
)
STATES: Final = len(STATE_NAMES)

# Events.
C_SYN: Final = 0
C_ACK: Final = 1
C_PROOF: Final = 2
C_FIN: Final = 3
C_RST: Final = 4
B_SYN_ACK: Final = 5
B_ACK: Final = 6
B_FIN: Final = 7
B_RST: Final = 8
EVENTS: Final = 9

#: bytes by which a RST may miss the sequence number that is known to be expected next, either way:
#: what is in flight while it is sent
WINDOW: Final = 1 << 20
#: the same where packets pass unseen for a lease at a time (dsr)
UNSEEN_WINDOW: Final = 1 << 24
#: times that what was sent and acknowledged must grow before a one-sided flow counts as
#: established
GROWTHS: Final = 2

Transitions = Mapping[int, Mapping[int, int]]

_RESETS: Final = {C_RST: CLIENT_RESET, B_RST: RESET}

#: state → event → state. From a closed state a SYN opens another flow with the same ports.
TWO_SIDED: Final[Transitions] = {
    SYN_SENT: {
        B_SYN_ACK: SYN_RECEIVED,
        B_ACK: ESTABLISHED,  # it has the connection: the SYN was forged, or comes of an old one
        B_FIN: FIN_BACKEND,
        **_RESETS,
    },
    SYN_RECEIVED: {
        C_PROOF: ESTABLISHED,
        C_FIN: FIN_CLIENT,  # where it acknowledges the backend's SYN
        B_FIN: FIN_BACKEND,
        **_RESETS,
    },
    ESTABLISHED: {C_FIN: FIN_CLIENT, B_FIN: FIN_BACKEND, **_RESETS},
    FIN_CLIENT: {B_FIN: LAST_ACK, **_RESETS},
    FIN_BACKEND: {C_FIN: LAST_ACK_BACKEND, **_RESETS},
    LAST_ACK: {C_ACK: TIME_WAIT, **_RESETS},
    LAST_ACK_BACKEND: {B_ACK: TIME_WAIT, **_RESETS},
    TIME_WAIT: {C_SYN: SYN_SENT},
    # A flow that goes on was not reset (RFC 7857 section 3).
    RESET: {
        C_SYN: SYN_SENT,
        C_PROOF: ESTABLISHED,
        B_ACK: ESTABLISHED,
        B_SYN_ACK: SYN_RECEIVED,
    },
    CLIENT_RESET: {
        C_SYN: SYN_SENT,
        C_PROOF: ESTABLISHED,
        B_ACK: ESTABLISHED,
        B_SYN_ACK: SYN_RECEIVED,
        B_RST: RESET,
    },
}

ONE_SIDED: Final[Transitions] = {
    SYN_SENT: {C_ACK: UNCONFIRMED, C_FIN: CLIENT_DONE, C_RST: CLIENT_RESET},
    UNCONFIRMED: {C_PROOF: ESTABLISHED, C_FIN: CLIENT_DONE, C_RST: CLIENT_RESET},
    ESTABLISHED: {C_FIN: CLIENT_DONE, C_RST: CLIENT_RESET},
    CLIENT_DONE: {C_SYN: SYN_SENT, C_PROOF: TIME_WAIT, C_RST: CLIENT_RESET},
    CLIENT_RESET: {C_SYN: SYN_SENT, C_ACK: UNCONFIRMED, C_PROOF: ESTABLISHED},
    TIME_WAIT: {C_SYN: SYN_SENT},
}

#: closed states after which the client's next SYN goes to the same backend all the same, where that
#: takes new flows: who closed the flow is not certain, and it may be alive there
DOUBTFUL: Final = frozenset((CLIENT_RESET, CLIENT_DONE))

# What a state counts as, for operators, for `weighted` and for those who wait for a drain.
OPENING: Final = 0  # not answered yet, or not known to be
ACTIVE: Final = 1
CLOSING: Final = 2  # closed, or as good as

#: classes of states in which flows make room, each with a timer wheel of its own
CLOSED_CLASS: Final = 0
DONE_CLASS: Final = 1
HALF_OPEN_CLASS: Final = 2
SINGLE_CLASS: Final = 3
DATAGRAM_CLASS: Final = 4
LASTING_CLASS: Final = 5
CLASSES: Final = 6

#: state → what it counts as, its class, its protocol
_KINDS: Final[Mapping[int, tuple[int, int, str]]] = {
    SYN_SENT: (OPENING, HALF_OPEN_CLASS, "tcp"),
    SYN_RECEIVED: (OPENING, HALF_OPEN_CLASS, "tcp"),
    UNCONFIRMED: (OPENING, HALF_OPEN_CLASS, "tcp"),
    ESTABLISHED: (ACTIVE, LASTING_CLASS, "tcp"),
    FIN_CLIENT: (ACTIVE, LASTING_CLASS, "tcp"),
    FIN_BACKEND: (ACTIVE, LASTING_CLASS, "tcp"),
    CLIENT_DONE: (CLOSING, DONE_CLASS, "tcp"),
    LAST_ACK: (CLOSING, DONE_CLASS, "tcp"),
    LAST_ACK_BACKEND: (CLOSING, DONE_CLASS, "tcp"),
    TIME_WAIT: (CLOSING, CLOSED_CLASS, "tcp"),
    RESET: (CLOSING, CLOSED_CLASS, "tcp"),
    CLIENT_RESET: (CLOSING, CLOSED_CLASS, "tcp"),
    UDP_NEW: (OPENING, SINGLE_CLASS, "udp"),
    UDP_ANSWERED: (ACTIVE, SINGLE_CLASS, "udp"),
    UDP_OPEN: (ACTIVE, DATAGRAM_CLASS, "udp"),
    ICMP_OPEN: (ACTIVE, SINGLE_CLASS, "icmp"),
    GONE: (CLOSING, CLOSED_CLASS, ""),
}

GROUP_OF: Final = bytes(_KINDS[state][0] for state in range(STATES))
CLASS_OF: Final = bytes(_KINDS[state][1] for state in range(STATES))
PROTOCOL_OF: Final = tuple(_KINDS[state][2] for state in range(STATES))


def flattened(table: Transitions) -> bytes:
    """``table`` for the packet path: at state x EVENTS + event, the next state."""
    return bytes(
        table.get(state, {}).get(event, state) for state in range(STATES) for event in range(EVENTS)
    )


TWO_SIDED_NEXT: Final = flattened(TWO_SIDED)
ONE_SIDED_NEXT: Final = flattened(ONE_SIDED)

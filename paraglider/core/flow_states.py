"""States of flows: transitions, order of eviction, and the group that a state counts in.

All transitions of TCP flows are in the tables of this module. ``TWO_SIDED`` is for flows whose
packets pass in both directions (nat), ``ONE_SIDED`` for flows whose answers bypass the balancer
(nat with ``return: direct``, dsr). An event that is not in a state's row changes nothing.

            SYN_SENT ─▶ SYN_RECEIVED ─▶ ESTABLISHED ─▶ FIN_CLIENT  ─▶ LAST_ACK         ─▶ TIME_WAIT
                                             │     └─▶ FIN_BACKEND ─▶ LAST_ACK_BACKEND ─▶ TIME_WAIT
                                             └─▶ RESET, CLIENT_RESET (and back, RFC 7857 section 3)
    adopted:   ADOPTED, ADOPTED_BACKEND ─▶ ESTABLISHED (with a FIN before: ADOPTED_FIN and
               ADOPTED_BACKEND_FIN ─▶ half-closed)
    one-sided: SYN_SENT ─▶ UNCONFIRMED ─▶ ESTABLISHED ─▶ CLIENT_DONE ─▶ TIME_WAIT

Half-closed flows have the timeout of established ones (RFC 5382 REQ-5 is about half-open ones). A
flow is closed when both FINs were seen and the second was acknowledged, or by RST; a closed flow is
kept for a while, and is evicted first.

An event is a plausible segment of one side:

* C_PROOF is an ACK that proves more than C_ACK. Two-sided, during the handshake: it acknowledges
the backend's SYN, which only the receiver of the backend's packets can. One-sided: the client's
sequence and acknowledgment numbers have grown GROWTHS times, each in a later packet. After a RST:
the flow was established before. One-sided, after the client's FIN: it acknowledges one number more
than the FIN did, which is the backend's FIN.
* C_RST is a RST of the client within WINDOW of the sequence number that the backend expects, if
known; any other RST is no event. A guess succeeds once in 2,048 times, and the backend's answer to
a guess within its window (RFC 5961 section 3.2: a challenge ACK) restores the flow. One-sided, a
RST or a FIN is within UNSEEN_WINDOW of the client's last number, and a guess succeeds once in 128
times. If packets may have passed unseen (by a lease of dsr), no number is implausible: a FIN
counts, and a RST farther than UNSEEN_WINDOW counts as a FIN, since a flow after a FIN is kept while
it is in use.
* Segments of a backend are always plausible: only hosts behind the balancer have its address.

A two-sided flow that was adopted in mid-stream (``adoption``) is half-open until the other side has
a packet too: a client's segment proves nothing before the backend goes on with the connection, nor
a segment with a backend's address before the client does. A one-sided one is as after its SYN.

A SYN does not change the state of a live flow. It is forwarded to the flow's backend, whose TCP
decides (RFC 5961 section 4.2): a challenge ACK if the connection is alive there, otherwise RST or a
new connection.

Rules: the numbers are stored in journals on disk (``journal``), so their meaning never changes; a
new state gets a new number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SYN_SENT: Final = 0  # the client's SYN was seen
SYN_RECEIVED: Final = 1  # the backend answered it
ESTABLISHED: Final = 2
LAST_ACK: Final = 3  # both FINs were seen; the client must acknowledge the backend's
UDP_NEW: Final = 4  # no answer yet
UDP_OPEN: Final = 5  # the client went on after the answer; one-sided: a second packet
ICMP_OPEN: Final = 6
GONE: Final = 7  # in no table
UNCONFIRMED: Final = 8  # one-sided: the client sent more, but may not receive from the backend
FIN_CLIENT: Final = 9  # half-closed by the client
FIN_BACKEND: Final = 10  # half-closed by the backend
TIME_WAIT: Final = 11  # closed
RESET: Final = 12  # closed by a RST of the backend
CLIENT_RESET: Final = 13  # closed by a RST that may be the client's
UDP_ANSWERED: Final = 14  # one exchange
LAST_ACK_BACKEND: Final = 15  # both FINs were seen; the backend must acknowledge the client's
CLIENT_DONE: Final = 16  # one-sided: the client's FIN was seen; the backend's never passes here
ADOPTED: Final = 17  # adopted by a segment of the client; the backend has not gone on yet
ADOPTED_FIN: Final = 18  # the same, and the client's FIN was seen
ADOPTED_BACKEND: Final = 19  # adopted by a segment of the backend; the client has not gone on yet
ADOPTED_BACKEND_FIN: Final = 20  # the same, and the backend's FIN was seen

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
    "adopted",
    "adopted-fin",
    "adopted-backend",
    "adopted-backend-fin",
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

#: largest distance in bytes, either way, of a RST from the expected sequence number: the bytes in
#: flight
WINDOW: Final = 1 << 20
#: the same for a segment of a one-sided flow, of which packets may be in the worker's queue while a
#: carrier in the kernel has later ones: no more than the largest receive window in use
UNSEEN_WINDOW: Final = 1 << 24
#: times that the numbers of a one-sided flow must grow before it counts as established
GROWTHS: Final = 2

Transitions = Mapping[int, Mapping[int, int]]

_RESETS: Final = {C_RST: CLIENT_RESET, B_RST: RESET}

#: state → event → state. From a closed state a SYN opens another flow with the same ports.
TWO_SIDED: Final[Transitions] = {
    SYN_SENT: {
        B_SYN_ACK: SYN_RECEIVED,
        B_ACK: ESTABLISHED,  # it has the connection: the SYN was forged or of an old connection
        B_FIN: FIN_BACKEND,
        **_RESETS,
    },
    SYN_RECEIVED: {
        C_PROOF: ESTABLISHED,
        C_FIN: FIN_CLIENT,  # if it acknowledges the backend's SYN
        B_FIN: FIN_BACKEND,
        **_RESETS,
    },
    ESTABLISHED: {C_FIN: FIN_CLIENT, B_FIN: FIN_BACKEND, **_RESETS},
    FIN_CLIENT: {B_FIN: LAST_ACK, **_RESETS},
    FIN_BACKEND: {C_FIN: LAST_ACK_BACKEND, **_RESETS},
    LAST_ACK: {C_ACK: TIME_WAIT, **_RESETS},
    LAST_ACK_BACKEND: {B_ACK: TIME_WAIT, **_RESETS},
    ADOPTED: {
        C_FIN: ADOPTED_FIN,
        B_SYN_ACK: SYN_RECEIVED,  # a SYN came after, and the backend took it as a new connection
        B_ACK: ESTABLISHED,
        B_FIN: FIN_BACKEND,
        **_RESETS,
    },
    ADOPTED_FIN: {B_ACK: FIN_CLIENT, B_FIN: LAST_ACK, **_RESETS},
    ADOPTED_BACKEND: {
        C_ACK: ESTABLISHED,
        C_FIN: FIN_CLIENT,
        B_FIN: ADOPTED_BACKEND_FIN,
        **_RESETS,
    },
    ADOPTED_BACKEND_FIN: {C_ACK: FIN_BACKEND, C_FIN: LAST_ACK_BACKEND, **_RESETS},
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

#: closed states, from which a SYN opens another flow with the same ports
CLOSED_STATES: Final = frozenset((TIME_WAIT, RESET, CLIENT_RESET))

#: closed states after which the client's next SYN goes to the same backend if that takes new flows:
#: the connection may still be alive there
DOUBTFUL: Final = frozenset((CLIENT_RESET, CLIENT_DONE))

# The groups of states, for `show`, for `weighted` and for the end of a drain.
OPENING: Final = 0  # not answered yet, as far as known
ACTIVE: Final = 1
CLOSING: Final = 2  # closed, or about to be

#: classes of states for eviction, each with its own timer wheel
CLOSED_CLASS: Final = 0
DONE_CLASS: Final = 1
HALF_OPEN_CLASS: Final = 2
SINGLE_CLASS: Final = 3
DATAGRAM_CLASS: Final = 4
LASTING_CLASS: Final = 5
CLASSES: Final = 6

#: state → its group, its class, its protocol
_KINDS: Final[Mapping[int, tuple[int, int, str]]] = {
    SYN_SENT: (OPENING, HALF_OPEN_CLASS, "tcp"),
    SYN_RECEIVED: (OPENING, HALF_OPEN_CLASS, "tcp"),
    UNCONFIRMED: (OPENING, HALF_OPEN_CLASS, "tcp"),
    ADOPTED: (OPENING, HALF_OPEN_CLASS, "tcp"),
    ADOPTED_FIN: (OPENING, HALF_OPEN_CLASS, "tcp"),
    ADOPTED_BACKEND: (OPENING, HALF_OPEN_CLASS, "tcp"),
    ADOPTED_BACKEND_FIN: (OPENING, HALF_OPEN_CLASS, "tcp"),
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
    """``table`` for the packet path: the next state at index state x EVENTS + event."""
    return bytes(
        table.get(state, {}).get(event, state) for state in range(STATES) for event in range(EVENTS)
    )


TWO_SIDED_NEXT: Final = flattened(TWO_SIDED)
ONE_SIDED_NEXT: Final = flattened(ONE_SIDED)

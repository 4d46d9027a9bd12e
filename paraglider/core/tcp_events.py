"""Converts TCP segments to events of ``flow_states``, and ignores implausible ones.

Only this module reads sequence and acknowledgment numbers (RFC 9293 section 3.1: at offsets 4 and 8
of the header). Each flow stores two values (``flow.Flow``):

    expected   two-sided: the backend's last acknowledgment number. One-sided: the client's last
               sequence number; it changes by less than ``window`` at a time, so that a forged
               segment cannot move it far
    progress   two-sided: the number that acknowledges the backend's SYN. One-sided: the sum of the
               client's sequence and acknowledgment numbers, which grows only with new bytes of
               either side; after the client's FIN, its acknowledgment number

Packets may pass without the worker: then ``expected`` is older than the connection. A carrier in
the kernel may have a newer number, or an older one if the worker has carried some packets
(``segment_event``). During a lease nobody sees the numbers.

Rules: no table is changed here, except by its carrier; the buffer must contain the header up to its
flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
    CLIENT_DONE,
    CLIENT_RESET,
    CLOSED_STATES,
    GONE,
    GROWTHS,
    RESET,
    SYN_RECEIVED,
    SYN_SENT,
    UNCONFIRMED,
    UNSEEN_WINDOW,
    WINDOW,
)
from paraglider.core.packet import ACK, FIN, RST, SYN

if TYPE_CHECKING:
    from paraglider.core.flow_table import FlowTable

_NUMBERS: Final = 0xFFFFFFFF  # sequence numbers are modulo 2**32
_HALF: Final = 0x80000000


def is_replaced(table: FlowTable, flow: Flow, key: bytes, kind: int, now: float) -> bool:
    """Whether ``flow``, to which a segment with ``key`` and the flags ``kind`` belongs, has ended
    for a later one: look the segment up again. If the carrier's program decides, it may have opened
    a connection from the same port that the worker does not know of yet.
    """
    if not flow.translation.decided:
        return False
    if not kind & (FIN | SYN | RST) and flow.state not in CLOSED_STATES:
        return False
    table.fetch(TCP, key, now)
    return flow.state == GONE


def segment_event(
    table: FlowTable,
    flow: Flow,
    buf: bytearray,
    transport: int,
    direct: bool,
    leased: bool,
    now: float,
) -> int:
    """The event of the client's segment of ``flow``, which is in ``table``, as ``client_event``; a
    carried flow is updated first. ``leased``: packets of flows that are proven and not carried may
    pass unseen.

    A segment is plausible by the worker's number or by the carrier's: one of them may be old, and
    gets the other.
    """
    before = flow.expected
    if flow.carried:
        table.refresh(flow)
    known = flow.expected
    unseen = leased and not flow.carried and flow.proof >= GROWTHS
    event = client_event(flow, buf, transport, direct, unseen, now, before)
    if (
        direct
        and flow.carried
        and known
        and not _near(flow.expected, known, UNSEEN_WINDOW)
        and table.carrier is not None
    ):
        if (flow.expected - known) & _NUMBERS < _HALF:
            table.carrier.renew(flow)
        else:  # a segment that waited in the queue while later ones were carried
            flow.expected = known
    return event


def client_event(
    flow: Flow,
    buf: bytearray,
    transport: int,
    direct: bool,
    unseen: bool,
    now: float,
    before: int = 0,
) -> int:
    """The event of the client's segment with its header at ``transport``; -1 for none.

    ``direct`` means that the backend's segments do not pass here, ``unseen`` that packets of the
    client may have passed unseen. ``before`` is another number that may be expected, 0 for none.
    ``flow.seen`` must be the time of the previous packet.
    """
    kind = buf[transport + 13] & (FIN | SYN | RST | ACK)
    sequence = _number(buf, transport + 4)
    window = UNSEEN_WINDOW if direct else WINDOW
    near = not flow.expected or _near(sequence, flow.expected, window)
    if not near and before:
        near = _near(sequence, before, window)
    if kind & RST:
        if near:
            return C_RST
        return C_FIN if unseen else -1
    if kind & SYN:
        return C_SYN if kind == SYN else -1
    acknowledged = _number(buf, transport + 8)
    if direct:
        return _one_sided(flow, kind, sequence, acknowledged, near or unseen, now)
    if flow.state == SYN_RECEIVED:
        if not kind & ACK or (flow.progress and not _near(acknowledged, flow.progress, window)):
            return -1
        return C_FIN if kind & FIN else C_PROOF
    if kind & FIN:
        return C_FIN
    if kind != ACK:
        return -1
    if flow.state in (RESET, CLIENT_RESET) and flow.proof >= GROWTHS:
        return C_PROOF
    return C_ACK


def _one_sided(
    flow: Flow, kind: int, sequence: int, acknowledged: int, near: bool, now: float
) -> int:
    """``client_event`` for a segment without SYN and RST when the backend's do not pass here."""
    if near:
        flow.expected = sequence
    if kind & FIN:
        if not near:
            return -1
        flow.progress = acknowledged
        return C_FIN
    if kind != ACK:
        return -1
    state = flow.state
    if state == CLIENT_DONE:
        return C_PROOF if (acknowledged - flow.progress) & _NUMBERS == 1 else C_ACK
    total = (sequence + acknowledged) & _NUMBERS
    if state == CLIENT_RESET and flow.proof >= GROWTHS:
        return C_PROOF
    if state in (SYN_SENT, CLIENT_RESET):
        flow.progress = total
        flow.proof = 0
    elif state == UNCONFIRMED:
        grown = (total - flow.progress) & _NUMBERS
        if 0 < grown < _HALF and now > flow.seen:
            flow.progress = total
            flow.proof += 1
            if flow.proof >= GROWTHS:
                return C_PROOF
    return C_ACK


def backend_event(flow: Flow, buf: bytearray, transport: int) -> int:
    """The event of the backend's segment with its header at ``transport``; -1 for none."""
    kind = buf[transport + 13] & (FIN | SYN | RST | ACK)
    if kind & RST:
        return B_RST
    if not kind & ACK:
        return -1
    flow.expected = _number(buf, transport + 8)
    if kind & FIN:
        return B_FIN
    if kind & SYN:
        flow.progress = (_number(buf, transport + 4) + 1) & _NUMBERS
        return B_SYN_ACK
    return B_ACK


def _number(buf: bytearray, at: int) -> int:
    """The 32 bits at ``at`` as a number."""
    return buf[at] << 24 | buf[at + 1] << 16 | buf[at + 2] << 8 | buf[at + 3]


def _near(one: int, other: int, window: int) -> bool:
    """Whether two sequence numbers differ by less than ``window``."""
    return (one - other + window) & _NUMBERS < 2 * window

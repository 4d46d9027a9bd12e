"""Converts TCP segments to events of ``flow_states``, and ignores implausible ones.

Only this module reads sequence and acknowledgment numbers (RFC 9293 section 3.1: at offsets 4 and 8
of the header). Each flow stores two values (``flow.Flow``):

    expected   two-sided: what the backend last acknowledged. One-sided: the client's own sequence
               number, which moves by less than ``window`` at a time, so that a forged segment
               does not take it elsewhere
    progress   two-sided: what acknowledges the backend's SYN. One-sided: sequence and
               acknowledgment number of the client in one sum, which grows with every new byte of
               either side and with nothing else; from the client's FIN on, what it acknowledged

Rules: no table is changed here; the header must be there, up to its flags.
"""

from __future__ import annotations

from paraglider.core.flow import Flow
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
    GROWTHS,
    RESET,
    SYN_RECEIVED,
    SYN_SENT,
    UNCONFIRMED,
)
from paraglider.core.packet import ACK, FIN, RST, SYN


def client_event(
    flow: Flow, buf: bytearray, transport: int, direct: bool, window: int, now: float
) -> int:
    """The event of the client's segment with its header at ``transport``; -1 for none.

    ``direct`` means that the backend's segments do not pass here; ``window`` is the largest
    difference from the expected number, in bytes. ``flow.seen`` must be the time of the previous
    packet.
    """
    kind = buf[transport + 13] & (FIN | SYN | RST | ACK)
    sequence = _number(buf, transport + 4)
    near = not flow.expected or _near(sequence, flow.expected, window)
    if kind & RST:
        return C_RST if near else -1
    if kind & SYN:
        return C_SYN if kind == SYN else -1
    acknowledged = _number(buf, transport + 8)
    if direct:
        return _one_sided(flow, kind, sequence, acknowledged, near, now)
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
        flow.progress = acknowledged
        return C_FIN if near else -1
    if kind != ACK:
        return -1
    state = flow.state
    if state == CLIENT_DONE:
        return C_PROOF if (acknowledged - flow.progress) & 0xFFFFFFFF == 1 else C_ACK
    total = (sequence + acknowledged) & 0xFFFFFFFF
    if state == CLIENT_RESET and flow.proof >= GROWTHS:
        return C_PROOF
    if state in (SYN_SENT, CLIENT_RESET):
        flow.progress = total
        flow.proof = 0
    elif state == UNCONFIRMED:
        grown = (total - flow.progress) & 0xFFFFFFFF
        if 0 < grown < 0x80000000 and now > flow.seen:
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
        flow.progress = (_number(buf, transport + 4) + 1) & 0xFFFFFFFF
        return B_SYN_ACK
    return B_ACK


def _number(buf: bytearray, at: int) -> int:
    """The 32 bits at ``at`` as a number."""
    return buf[at] << 24 | buf[at + 1] << 16 | buf[at + 2] << 8 | buf[at + 3]


def _near(one: int, other: int, window: int) -> bool:
    """Whether two sequence numbers differ by less than ``window``."""
    return (one - other + window) & 0xFFFFFFFF < 2 * window

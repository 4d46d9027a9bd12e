"""A flow: one connection, with a key for each direction, its state and its translation.

Lives here: ``Flow``, the numbers of its protocols, and ``Timeouts`` by state (``flow_states``).
"""

from __future__ import annotations

from typing import Final

from paraglider.core.flow_states import (
    GROUP_OF,
    GROWTHS,
    ICMP_OPEN,
    OPENING,
    STATE_NAMES,
    SYN_SENT,
    UDP_NEW,
)
from paraglider.core.translation import Translation

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58

PROTOCOL_NAMES: Final = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmp6"}

#: state a flow starts in, by protocol
FIRST_STATE: Final = {TCP: SYN_SENT, UDP: UDP_NEW, ICMP: ICMP_OPEN, ICMP6: ICMP_OPEN}


class FlowTimeouts:
    """Idle timeouts in seconds by state (RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2).

    ``syn`` applies to flows that are half-open or wait for the last ACK, ``established`` to
    established and half-closed flows, ``closed_rst`` and ``closed_fin`` to flows closed by RST or
    by both FINs.
    """

    __slots__ = ("by_state",)

    def __init__(
        self,
        syn: float = 240,
        established: float = 7440,
        closed_rst: float = 10,
        closed_fin: float = 60,
        udp: float = 120,
        icmp: float = 60,
    ) -> None:
        seconds = {
            "syn-sent": syn,
            "syn-received": syn,
            "unconfirmed": syn,
            "adopted": syn,
            "adopted-fin": syn,
            "adopted-backend": syn,
            "adopted-backend-fin": syn,
            "last-ack": syn,
            "last-ack-backend": syn,
            "established": established,
            "fin-client": established,
            "fin-backend": established,
            "client-done": established,
            "time-wait": closed_fin,
            "reset": closed_rst,
            "client-reset": closed_rst,
            "udp-new": udp,
            "udp-answered": udp,
            "udp": udp,
            "icmp": icmp,
            "gone": 0.0,
        }
        self.by_state = tuple(seconds[name] for name in STATE_NAMES)


class Flow:
    """One connection. ``seen`` is the time of its last packet; ``bucket`` the list of the timer
    wheel that contains it, at index ``slot``; ``record`` its number in the journal, 0 for none.
    ``carried`` is not 0 while the table's carrier may have it; only the carrier sets it.

    For TCP: ``expected`` is the expected sequence number of the client's next segment; ``progress``
    the last number that counted as evidence (``tcp_events``), ``proof`` how often it has grown; all
    three are 0 while unknown. ``proof`` of an established flow is GROWTHS.
    """

    __slots__ = (
        "bucket",
        "carried",
        "expected",
        "forward_key",
        "progress",
        "proof",
        "protocol",
        "record",
        "reverse_key",
        "seen",
        "slot",
        "state",
        "translation",
    )

    def __init__(
        self,
        protocol: int,
        forward_key: bytes,
        reverse_key: bytes,
        translation: Translation,
        state: int,
        seen: float,
    ) -> None:
        self.protocol = protocol
        self.forward_key = forward_key
        self.reverse_key = reverse_key
        self.translation = translation
        self.state = state
        self.seen = seen
        self.bucket: list[Flow] = []
        self.slot = 0
        self.record = 0
        self.carried = 0
        self.expected = 0
        self.progress = 0
        self.proof = 0 if GROUP_OF[state] == OPENING else GROWTHS

    def __repr__(self) -> str:
        backend = self.translation.backend.name
        return f"<Flow {self.protocol} {STATE_NAMES[self.state]} to {backend}>"

"""The entry of a flow in the BPF carrier's maps, and the states that it implies.

Lives here: ``FlowEntry``, the values of ``Flow.carried``, the states that are carried,
``seen_states``.
Rules: pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from paraglider.bpf.layout import (
    CLOSED,
    DECIDED,
    DIRECT,
    FIN_BACK,
    FIN_OUT,
    FLOW,
    GROWN,
    REPLIED,
    TICK_SHIFT,
)
from paraglider.bpf.layout import ESTABLISHED as PROVEN
from paraglider.core.compact import COMPACT_STATES
from paraglider.core.flow import TCP, Flow
from paraglider.core.flow_states import (
    CLIENT_DONE,
    ESTABLISHED,
    FIN_BACKEND,
    FIN_CLIENT,
    GROUP_OF,
    OPENING,
    STATES,
    SYN_RECEIVED,
    SYN_SENT,
    TIME_WAIT,
    UDP_ANSWERED,
    UDP_NEW,
    UDP_OPEN,
    UNCONFIRMED,
)

#: values of ``Flow.carried``: no entry; one; one and an alias for its replies; not known
NOT_CARRIED: Final = 0
PLAIN: Final = 1
ALIASED: Final = 2
UNKNOWN: Final = 3

#: in place of flags: flows in this state are carried by the worker
NONE: Final = -1

_OPEN: Final = REPLIED | PROVEN
_TWO_SIDED: Final[Mapping[int, int]] = {
    SYN_SENT: 0,
    ESTABLISHED: _OPEN,
    FIN_CLIENT: _OPEN | FIN_OUT,
    FIN_BACKEND: _OPEN | FIN_BACK,
    UDP_NEW: 0,
    UDP_ANSWERED: 0,
    UDP_OPEN: 0,
}
_ONE_SIDED: Final[Mapping[int, int]] = {
    SYN_SENT: DIRECT,
    UNCONFIRMED: DIRECT | REPLIED,
    ESTABLISHED: DIRECT | _OPEN,
    CLIENT_DONE: DIRECT | FIN_OUT,
    UDP_NEW: DIRECT,
    UDP_OPEN: DIRECT,
}

#: flags of a flow's entry by the flow's state: two-sided, and one-sided (``return: direct``)
TWO_SIDED_FLAGS: Final = tuple(_TWO_SIDED.get(state, NONE) for state in range(STATES))
ONE_SIDED_FLAGS: Final = tuple(_ONE_SIDED.get(state, NONE) for state in range(STATES))

#: one-sided: state → those that the program may have led a flow to
_AFTER: Final[Mapping[int, tuple[int, ...]]] = {
    SYN_SENT: (UNCONFIRMED, ESTABLISHED, CLIENT_DONE, TIME_WAIT),
    UNCONFIRMED: (ESTABLISHED, CLIENT_DONE, TIME_WAIT),
    ESTABLISHED: (CLIENT_DONE, TIME_WAIT),
    CLIENT_DONE: (TIME_WAIT,),
    UDP_NEW: (UDP_OPEN,),
}

#: states in which a flow is always installed; in the other carried states, only the datapath
#: installs it, with the packet that opens it or the next one
LASTING: Final = frozenset((ESTABLISHED, FIN_CLIENT, FIN_BACKEND, UDP_OPEN))
#: by state whether a carried flow may become compact (``compacting``)
COMPACTED: Final = bytes(state in COMPACT_STATES.values() for state in range(STATES))

_NANOSECONDS: Final = 1_000_000_000


class FlowEntry(NamedTuple):
    """The value of a flow's entry (``bpf.layout.FLOW``); ``slot`` is that of its translation."""

    ticks: int
    flags: int
    ack: int = 0
    slot: int = 0
    owner: int = 0
    packets_out: int = 0
    packets_back: int = 0

    @property
    def packets(self) -> tuple[int, int]:
        """The packets that passed, to the backend and back."""
        return self.packets_out, 0 if self.flags & DIRECT else self.packets_back

    @property
    def seen(self) -> float:
        """When the last packet passed (monotonic seconds), at most one tick too early."""
        return (self.ticks << TICK_SHIFT) / _NANOSECONDS

    def pack(self) -> bytes:
        """The bytes of the value."""
        return FLOW.pack(*self)

    @classmethod
    def unpack(cls, value: bytes) -> FlowEntry:
        """The entry with the bytes ``value``."""
        return cls._make(FLOW.unpack(value))


def ticks_of(seconds: float) -> int:
    """``seconds`` of the monotonic clock in the program's ticks."""
    nanoseconds = int(seconds * _NANOSECONDS)
    return nanoseconds >> TICK_SHIFT & 0xFFFFFFFF


def evidence_of(flow: Flow) -> int:
    """The flags for what a half-open one-sided ``flow`` has shown so far."""
    return GROWN if flow.translation.direct and flow.proof == 1 else 0


def flags_of(flow: Flow) -> int:
    """The flags of the entry of ``flow``; NONE in states that are not carried. A half-open
    one-sided flow is carried only if the program decides for its service, since else a flood of
    first packets would fill the maps.
    """
    translation = flow.translation
    if not translation.direct:
        return TWO_SIDED_FLAGS[flow.state]
    if GROUP_OF[flow.state] == OPENING and not translation.decided:
        return NONE
    return ONE_SIDED_FLAGS[flow.state]


def is_later(value: bytes | None, slot: int) -> bool:
    """Whether there is an entry with ``value``, of a later connection than a closed one whose
    translation has ``slot``: one that is open, or has another translation.
    """
    if value is None:
        return False
    entry = FlowEntry.unpack(value)
    return not entry.flags & CLOSED or entry.slot != slot


def set_numbers(flow: Flow, entry: FlowEntry) -> None:
    """Set the numbers of a one-sided ``flow`` to those of its ``entry``."""
    if flow.protocol != TCP:
        return
    if entry.ack:
        flow.expected = entry.ack
    flow.progress = entry.packets_back
    if entry.flags & GROWN and not flow.proof:
        flow.proof = 1


def seen_states(flow: Flow, flags: int, packets_out: int, packets_back: int) -> list[int]:
    """The states that ``flow`` has passed through since its last update, in order, by the flags
    and packets of its entry.
    """
    state, passed = flow.state, []
    if flags & DIRECT:
        last = one_sided_state(flow.protocol, flags, packets_out)
        if flags & PROVEN and state in (SYN_SENT, UNCONFIRMED) and last != ESTABLISHED:
            passed.append(ESTABLISHED)
        if last in _AFTER.get(state, ()):
            passed.append(last)
        return passed
    if flow.protocol != TCP:
        if packets_back and state == UDP_NEW:
            state = UDP_ANSWERED
            passed.append(state)
        if packets_out and state == UDP_ANSWERED and not flow.translation.udp_reply:
            passed.append(UDP_OPEN)
        return passed
    if state == SYN_SENT and flags & PROVEN:
        state = ESTABLISHED
        passed.append(state)
    elif state == SYN_SENT and flags & REPLIED:
        passed.append(SYN_RECEIVED)
    if flags & CLOSED:
        passed.append(TIME_WAIT)
    elif state == ESTABLISHED and flags & FIN_OUT:
        passed.append(FIN_CLIENT)
    elif state == ESTABLISHED and flags & FIN_BACK:
        passed.append(FIN_BACKEND)
    return passed


def one_sided_state(protocol: int, flags: int, packets_out: int) -> int:
    """The state of a one-sided flow with these values in its entry."""
    if protocol != TCP:
        first = 1 if flags & DECIDED else 0  # of a worker's flow, the first passed the worker
        return UDP_OPEN if packets_out > first else UDP_NEW
    if flags & CLOSED:
        return TIME_WAIT
    if flags & FIN_OUT:
        return CLIENT_DONE
    if flags & PROVEN:
        return ESTABLISHED
    return UNCONFIRMED if flags & REPLIED else SYN_SENT


def first_state(protocol: int, entry: FlowEntry) -> int:
    """The state of a flow that the worker has only the entry of."""
    if entry.flags & DIRECT:
        return one_sided_state(protocol, entry.flags, entry.packets_out)
    if protocol != TCP:
        return UDP_NEW
    return ESTABLISHED if entry.flags & PROVEN else SYN_SENT

"""A program that decides, for tests of what its worker makes of entries and events.

Lives here: ``DecidingProgram``.
Rules: IPv4; the entries and events are those of the program, and it reads no packets.
"""

from __future__ import annotations

from collections.abc import Sequence

from bpf_world import MemoryMap, MemoryRing, Program, Worker, memory_maps

from paraglider.bpf.layout import (
    ALIAS,
    CLOSED,
    DECIDED,
    DIRECT,
    ESTABLISHED,
    EVENT,
    EVENT_CLOSED,
    EVENT_ESTABLISHED,
    EVENT_OPENED,
    FIN_BACK,
    FIN_OUT,
    REPLIED,
)
from paraglider.core.flow import TCP
from paraglider.core.service import VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.bpf.entry import FlowEntry, ticks_of

#: the flags of an entry: of a new flow, of an established one, of one that is over
NEW = DECIDED
OPEN = DECIDED | REPLIED | ESTABLISHED
OVER = OPEN | FIN_OUT | FIN_BACK | CLOSED


class DecidingProgram:
    """A program that decides about the flows of the worker ``one``, which has ``services``. It
    gives them one of the ``translations``, which are counted from 0, as are their ``keys``.
    """

    def __init__(self, *services: VirtualService) -> None:
        self.maps, self.ring = memory_maps(), MemoryRing(10_000)
        self.program = Program(self.maps, {0: self.ring})
        self.one = Worker(services, self.maps, self.ring, self.program)
        self.one.carrier.configure(services, (), services)
        self.one.settle(0.0)
        self.translations: Sequence[Translation] = ()
        self.keys: Sequence[bytes] = ()

    def entries(self, protocol: int = TCP) -> dict[bytes, bytes]:
        """All entries of ``protocol``."""
        flows = self.maps.flows[protocol, 4]
        assert isinstance(flows, MemoryMap)
        return flows.content

    def opens(self, to: int, flags: int = NEW, now: float = 0.0, protocol: int = TCP) -> None:
        """The first packet of a flow; what follows leads to ``flags``."""
        translation = self.translations[to]
        self.give_way(to)
        self.set(to, flags, now, protocol)
        if translation.aliased:
            alias = FlowEntry(0, ALIAS, 0, translation.slot).pack()
            self.entries(protocol)[translation.reverse_key(self.keys[to])] = alias
        self.tell(EVENT_OPENED, to, NEW, protocol)
        if flags & ESTABLISHED:
            self.tell(EVENT_ESTABLISHED, to, OPEN)
        if flags & CLOSED:
            self.closes(to, now)

    def give_way(self, to: int) -> None:
        """Remove what has the place of a new flow's entries."""

    def closes(self, to: int, now: float = 0.0) -> None:
        """Both FINs pass."""
        self.set(to, OVER, now)
        self.tell(EVENT_CLOSED, to, OVER)

    def set(self, to: int, flags: int, now: float, protocol: int = TCP) -> None:
        """Set the entry."""
        value = FlowEntry(ticks_of(now), flags | self._direct(to), 0, self.translations[to].slot)
        self.entries(protocol)[self.keys[to]] = value.pack()

    def tell(self, kind: int, to: int, flags: int, protocol: int = TCP) -> None:
        """Send an event."""
        flags |= self._direct(to)
        slot = self.translations[to].slot
        self.ring.events.append(EVENT.pack(kind, 4, protocol, flags, slot, self.keys[to]))

    def check(self, to: int) -> None:
        """The one flow has the translation ``to``, and so has its entry."""
        (flow,) = self.one.flows.forward[TCP].values()
        assert flow.translation is self.translations[to]
        assert FlowEntry.unpack(self.entries()[self.keys[to]]).slot == self.translations[to].slot
        self.one.check()

    def _direct(self, to: int) -> int:
        return DIRECT if self.translations[to].direct else 0

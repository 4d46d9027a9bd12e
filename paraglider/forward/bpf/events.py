"""The program's events about the flows of a worker.

An event has the flags of the flow's entry, so the entry need not be read, unless the event may be
of an earlier flow with the same key (``removed``), as all those that were sent to the predecessor.

Lives here: ``FlowEvents``, which all carriers of a worker share.
Rules: the work of one reading is bounded: events count by their cost, and keys whose entries have
to be read wait for later readings.
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import Final, Protocol

from paraglider.bpf.layout import CLOSED, EVENT, EVENT_OPENED, KEY4, KEY6
from paraglider.core.flow import TCP, UDP
from paraglider.core.flow_index import FlowIndex
from paraglider.forward.bpf.ahead import EntriesAhead
from paraglider.forward.bpf.decided import DecidedFlows
from paraglider.forward.bpf.entry import ALIASED, PLAIN, UNKNOWN
from paraglider.forward.bpf.flows import CarriedFlows
from paraglider.forward.bpf.removed import RemovedKeys

#: events in one reading: 90,000 a second, in less than 5 ms; one that opens a flow counts for
#: OPENING. A connection that is over has three, so that many short ones do not fill the ring
EVENTS: Final = 4500
OPENING: Final = 5
#: the same while keys wait
EVENTS_WHILE_WAITING: Final = 750
#: events that are taken from the ring at a time: in one portion, a connection that is over opens no
#: flow, so small ones, of few milliseconds, would cost more
PORTION: Final = 1500
#: entries to read in one reading: 4,000 a second, each at the cost of AN_ENTRY events
ENTRIES: Final = 200
AN_ENTRY: Final = 5
#: an event for which a compact flow is expanded costs as much as so many more
EXPANSION: Final = 5
#: flows that are expanded in one reading: 7,500 a second; the events of others wait
EXPANSIONS: Final = 375
#: most keys that wait
MOST_WAITING: Final = 1 << 16

# In the compiled module, names with an underscore are C numbers and not importable.
_MOST: Final = EVENTS
_MOST_WHILE_WAITING: Final = EVENTS_WHILE_WAITING
_PORTION: Final = PORTION
_OPENING: Final = OPENING
_AN_ENTRY: Final = AN_ENTRY
_EXPANSION: Final = EXPANSION
_EXPANSIONS: Final = EXPANSIONS
_SLOT: Final = 4
_SLOT_END: Final = 6
_KEY: Final = EVENT.size - KEY6.size
_KEY_END4: Final = _KEY + KEY4.size
_KEY_END6: Final = EVENT.size


class EventRing(Protocol):
    """The ring of a worker (``bpf.ring.Ring``)."""

    def read(self, most: int) -> list[bytes]:
        """Up to ``most`` events, the oldest first; does not wait."""


class FlowEvents:
    """Handles the events in ``ring``; ``removed`` has the doubtful keys, ``ahead`` gets those of
    backends that are not known yet. ``count`` is the work of the last reading, as a number of
    events. ``overflowed``: keys found no room to wait, so all entries have to be read.
    """

    def __init__(self, ring: EventRing, removed: RemovedKeys, ahead: EntriesAhead) -> None:
        self.count = 0
        self.overflowed = False
        self._waiting: dict[bytes, None] = {}  # keys whose entries have to be read
        self._left: dict[bytes, int] = {}  # flags of the events that were read, and wait
        self._expanded = 0  # flows in this reading
        self._ring = ring
        self._removed = removed
        self._ahead = ahead
        self._carried: list[CarriedFlows] = []
        self._decided: list[DecidedFlows] = []
        self._tables: list[FlowIndex] = []  # their TCP flows by key

    def add(self, flows: CarriedFlows, decided: DecidedFlows) -> None:
        """Handle the events of ``flows`` too; ``decided`` has those that the program decided."""
        self._carried.append(flows)
        self._decided.append(decided)
        self._tables.append(flows.table.forward[TCP])

    def read(self, now: float, entries: int = ENTRIES) -> list[bytes]:
        """Handle some events; returns the keys of at most ``entries`` entries that have to be
        read.
        """
        most = _MOST_WHILE_WAITING if self._waiting else _MOST
        work, ended, self._expanded = len(self._left), False, 0
        self._handle_left(now)
        while work < most and not ended and not self._left:
            portion = min(_PORTION, most - work)
            records = self._ring.read(portion)
            ended = len(records) < portion
            work += self._handle(records, now)
        work += _EXPANSION * self._expanded
        ended = ended and not self._left
        for flows in self._carried:
            flows.flush()
        if ended:
            self._removed.ring_was_read()
            for decided in self._decided:
                decided.ring_was_read()
        keys = list(islice(self._waiting, entries))
        for key in keys:
            del self._waiting[key]
        self.count = work + _AN_ENTRY * len(keys)
        return keys

    def _handle(self, records: list[bytes], now: float) -> int:
        """Handle ``records``; returns the work, as a number of events."""
        # The last event of a flow has the flags of all.
        last: dict[bytes, int] = {}
        opened: dict[bytes, int] = {}  # of TCP: the slot of the last opening
        datagrams: dict[bytes, int] = {}  # of UDP, likewise
        earlier: list[tuple[int, bytes, int]] = []  # connections that the last one has followed
        work = len(records)
        for record in records:
            key = record[_KEY : _KEY_END4 if record[1] == 4 else _KEY_END6]
            if record[2] == TCP:
                last[key] = record[3]
            if record[0] == EVENT_OPENED:
                slot = int.from_bytes(record[_SLOT:_SLOT_END], sys.byteorder)
                some = opened if record[2] == TCP else datagrams
                if key in some:
                    earlier.append((record[2], key, some[key]))
                some[key] = slot
        for protocol, key, slot in earlier:
            for decided in self._decided:
                if decided.handle_earlier(protocol, key, slot):
                    break
        for key, slot in opened.items():
            flags = last.pop(key)
            self._handle_opening(TCP, key, slot, flags, now)
            work += 0 if flags & CLOSED else _OPENING - 1
        for key, slot in datagrams.items():
            self._handle_opening(UDP, key, slot, 0, now)
            work += _OPENING - 1
        self._left = last
        self._handle_left(now)
        return work

    def _handle_left(self, now: float) -> None:
        """Handle events in ``_left``; some stay if too many flows have to be expanded."""
        left, handled = self._left, 0
        for key, flags in left.items():
            if self._expanded >= _EXPANSIONS:
                break
            handled += 1
            known = False
            if not self._removed.is_doubtful(key):
                for at, table in enumerate(self._tables):
                    flows = self._carried[at]
                    expanded = flows.expanded
                    flows.handling = True
                    flow = table.get(key)
                    flows.handling = False
                    self._expanded += flows.expanded - expanded
                    if flow is not None:
                        known = flow.carried != UNKNOWN  # one without an entry, by expansion too
                        if PLAIN <= flow.carried <= ALIASED:
                            flows.handle_event(flow, flags, now)
                        break
            if not known:
                self._wait(key)
        self._left = dict(islice(left.items(), handled, None))

    def _handle_opening(self, protocol: int, key: bytes, slot: int, flags: int, now: float) -> None:
        for decided in self._decided:
            if decided.handle_opening(protocol, key, slot, flags, now):
                return
        self._ahead.keep(protocol, key, now)

    def _wait(self, key: bytes) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting[key] = None
        else:
            self.overflowed = True

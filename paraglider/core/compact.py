"""Compact flows: those that a carrier has for long, without an object for each.

A flow of the table takes some 280 bytes: the object, its keys, their places in two dictionaries and
in a timer wheel. Of a flow that is established and carried outside of this process, the journal's
record has the key and the state, and the carrier the time of the last packet. So such a flow may be
compact: 12 bytes, of which ``CompactIndex`` has 8 and a list of the timer wheel 4.

A compact flow is one of the table's in every respect: counts, limits and the journal have it. It is
expanded, which makes it a flow like any other, as soon as a key of it is looked up
(``FlowIndex.get``), it times out or may be evicted, or it is to be listed or ended.

Lives here: ``CompactFlows``, those of one protocol, and ``allow_compact``.
Rules: a compact flow has a record in the table's journal, an entry in the carrier, and the one
state in which flows of its protocol are made compact. No content of the journal raises: a flow
whose record was damaged is lost here, and the carrier is told (``FlowCarrier.lose_compact``). The
cost of an operation does not depend on the number of flows.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from mmap import PAGESIZE
from typing import Final

from paraglider.core.compact_index import MOST_TRANSLATIONS, CompactIndex, populate, words
from paraglider.core.flow import TCP, UDP, Flow
from paraglider.core.flow_states import ESTABLISHED, GONE, UDP_OPEN
from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import Journal
from paraglider.core.translation import Translation

#: the state of compact flows, by protocol
COMPACT_STATES: Final = {TCP: ESTABLISHED, UDP: UDP_OPEN}
#: a compact flow that is checked for expiry counts as so many others
COST: Final = 5
#: flows that are expanded in the search for one to evict
_EXPANDED: Final = 8
#: in place of the next record of a list: there is none
_END: Final = 0xFFFFFFFF
_KEY: Final = 36  # bytes of the longest key


class CompactFlows:
    """The compact flows of ``protocol`` of ``table``, which has ``journal``.

    ``index`` has their records. The record of each is in the list of the second in which its
    timeout is checked, and stays there until then if the flow is expanded: since all flows here
    have one timeout, it is not too late for another flow that has the record by then.
    """

    def __init__(self, table: FlowTable, journal: Journal, protocol: int) -> None:
        self.index = CompactIndex(journal)
        self.state = COMPACT_STATES[protocol]
        self._table = table
        self._journal = journal
        self.protocol = protocol
        later = words(journal.records + 1)
        self._later = later  # by each record the next of its list, 0 for none
        #: memory that is not provided yet: from which byte on, and the bytes of a record
        self._unprepared = [(memory, 0, size) for memory, size in (*self.index.memory, (later, 4))]
        self._lists: dict[int, int] = {}  # the first record by second
        self._seconds: list[int] = []  # a heap
        #: translations by number, and the reverse; how many flows each number has; free numbers
        self._translations: dict[int, Translation] = {}
        self._numbers: dict[Translation, int] = {}
        self._flows = [0]
        self._free: list[int] = []

    def add(self, flow: Flow) -> bool:
        """Make ``flow`` of the table compact; False if it cannot be. Its object is GONE then."""
        table = self._table
        if flow.state != self.state or not flow.record or table.held or table.damaged:
            return False
        record = flow.record
        if not self.index.may_add(record):  # the journal was damaged: it is another flow's too
            return False
        found = self._journal.record(record)
        wanted = (flow.state, flow.translation.identity, flow.forward_key)
        # The record may be damaged, or of an earlier version, with another identity.
        if found is None or (found[0], found[1], found[2][: len(flow.forward_key)]) != wanted:
            return False
        number = self._number(flow.translation)
        if not number:
            return False
        self._flows[number] += 1
        self.index.add(record, flow.forward_key, number)
        self._schedule(record, table.deadline(flow))
        table.detach(flow)
        flow.state = GONE
        flow.record = flow.carried = 0
        return True

    def prepare(self, most: int) -> bool:
        """Provide at most ``most`` bytes, whole pages, of the memory that the flows of all records
        so far need; returns whether any is left to provide. To be called before the flows of a
        journal are made compact: in any order of their records, a flow would wait for four pages.
        """
        while most >= PAGESIZE and self._unprepared:
            memory, begin, size = self._unprepared.pop()
            end = min(size * (self._journal.highest + 1), memory.nbytes) if size else memory.nbytes
            until = min(begin + most // PAGESIZE * PAGESIZE, end)
            populate(memory, begin, until)
            most -= until - begin
            if until < end:
                self._unprepared.append((memory, until, size))
        return bool(self._unprepared)

    def expand(self, record: int) -> Flow | None:
        """Put the compact flow of ``record`` into the table's indexes again, updated by the
        carrier; None if it is lost.
        """
        number = self.index.number(record)
        translation = self._translations[number]
        size = len(translation.vip)
        found = self._journal.record(record)
        state, identity, content = (GONE, b"", bytes(_KEY)) if found is None else found
        key = content[: 2 * size + 4]
        self.index.remove(record, key)
        self._release(number)
        table = self._table
        back = translation.reverse_key(key)
        intact = state == self.state and identity == translation.identity
        forward, reverse = table.forward[self.protocol], table.reverse[self.protocol]
        if (
            not intact
            or key[size:-4] != translation.vip
            or forward.has(key)  # else the record was damaged, or the list of free ones
            or reverse.has(back)
        ):
            table.lose(translation)
            return None
        flow = Flow(self.protocol, key, back, translation, self.state, 0.0)
        flow.record = record
        table.attach(flow)
        if table.carrier is not None:
            table.carrier.expanded(flow)
        return flow

    def translation_of(self, key: bytes) -> Translation | None:
        """The translation of the compact flow whose client's packets have ``key``; None if there is
        none. The flow stays compact.
        """
        record = self.index.find(key, False)
        found = self._journal.record(record) if record else None
        if found is None or found[2][: len(key)] != key:
            return None
        return self._translations[self.index.number(record)]

    def expire(self, now: float, budget: int) -> int:
        """Remove flows that have timed out; expands at most ``budget`` / COST flows. Returns the
        number of flows checked, each expanded one as COST.
        """
        checked = 0
        while checked < budget:
            record = self._take(now)
            if not record:
                break
            checked += 1
            if self.index.number(record):
                checked += COST - 1
                flow = self.expand(record)
                if flow is not None and self._table.deadline(flow) <= now:
                    self._table.forget(flow, now)
                    self._table.expired += 1
        return checked

    def expand_idle(self, now: float, idle: float) -> None:
        """Expand some of the flows that may have been idle for ``idle`` seconds."""
        until = now - idle + self._table.timeouts.by_state[self.state] + 1.0
        for _ in range(_EXPANDED):
            record = self._take(until)
            if not record:
                return
            if self.index.number(record):
                self.expand(record)

    def step(self, flows: int) -> int:
        """Expand ``flows``, unless fewer are left; returns how many."""
        expanded = 0
        record = 0
        while expanded < flows:
            record = self.index.next(record)
            if not record:
                break
            self.expand(record)
            expanded += 1
        return expanded

    def walk(self) -> Iterator[Flow]:
        """A copy of each compact flow, with keys, state and translation only; see
        ``FlowTable.walk``.
        """
        record = self.index.next(0)
        while record:
            found = self._journal.record(record)
            if found is not None:
                translation = self._translations[self.index.number(record)]
                key = found[2][: 2 * len(translation.vip) + 4]
                back = translation.reverse_key(key)
                yield Flow(self.protocol, key, back, translation, self.state, 0.0)
            record = self.index.next(record)

    def _schedule(self, record: int, deadline: float) -> None:
        if self._later[record]:
            return
        due = int(deadline) + 1
        first = self._lists.get(due, 0)
        if not first:
            heappush(self._seconds, due)
            first = _END
        self._later[record] = first
        self._lists[due] = record

    def _take(self, now: float) -> int:
        """Take the next record that is due from its list, or 0."""
        if not self._seconds or self._seconds[0] > now:
            return 0
        second = self._seconds[0]
        record = self._lists[second]
        following = self._later[record]
        self._later[record] = 0
        if following == _END:
            del self._lists[heappop(self._seconds)]
        else:
            self._lists[second] = following
        return record

    def _number(self, translation: Translation) -> int:
        """The number of ``translation``, a new one if it has none; 0 if there is none left."""
        number = self._numbers.get(translation, 0)
        if number:
            return number
        if self._free:
            number = self._free.pop()
        elif len(self._flows) <= MOST_TRANSLATIONS:
            number = len(self._flows)
            self._flows.append(0)
        else:
            return 0
        self._numbers[translation] = number
        self._translations[number] = translation
        return number

    def _release(self, number: int) -> None:
        """One flow fewer has the translation ``number``."""
        self._flows[number] -= 1
        if not self._flows[number]:
            del self._numbers[self._translations.pop(number)]
            self._free.append(number)


def allow_compact(table: FlowTable) -> None:
    """Have ``table``, which has a journal and a carrier, keep compact flows."""
    journal = table.journal
    if journal is None or table.compact:
        return
    made = tuple(CompactFlows(table, journal, protocol) for protocol in COMPACT_STATES)
    table.compact = made
    for flows in made:
        for index in (table.forward[flows.protocol], table.reverse[flows.protocol]):
            index.compact, index.expand = flows.index, flows.expand

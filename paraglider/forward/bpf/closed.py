"""Entries of closed connections without a flow: they stay for a while, then they are removed.

Lives here: ``ClosedEntries``, those of one carrier. They are entries of TCP, made by the program
(``decided``). They stay for LINGER seconds, so that the client's last ACK reaches the backend, and
segments that were lost reach either end. A SYN of the client does not wait for that: the program
gives the entry's place to the new connection. The event of it may not have been read yet when the
entry is due, or is lost until a sweep; so an open entry stays, and one that packets have passed of
late stays longer.
Rules: time is an argument. Memory is bounded. Entries closed in one tick are one batch; those that
are removed in one tick take one system call for each family.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from paraglider.bpf.layout import CLOSED, KEY4
from paraglider.bpf.maps import CarrierMaps
from paraglider.core.flow import TCP, Flow
from paraglider.core.translation import Translation
from paraglider.forward.bpf.entry import FlowEntry
from paraglider.forward.bpf.flows import CarriedFlows
from paraglider.forward.bpf.slots import Slots

#: seconds for which the entry of a closed connection stays
LINGER: Final = 10.0
#: seconds after a packet for which a closed entry is not removed: events are read sooner
FRESH: Final = 2.0
#: most entries of closed connections; beyond it, the oldest are removed
MOST_CLOSED: Final = 1 << 16
#: entries that are removed in one ``sync``: 30,000 a second, in less than 4 ms. Each is read by a
#: call of its own, since the kernel has none that reads several given keys of a hash
REMOVALS: Final = 1500

# In the compiled module, names with an underscore are C numbers and not importable.
_LINGER: Final = LINGER
_FRESH: Final = FRESH
_MOST_CLOSED: Final = MOST_CLOSED
_REMOVALS: Final = REMOVALS
_KEY4: Final = KEY4.size


class ClosedEntries:
    """The entries in ``maps`` whose connections are closed and have no flow among ``flows``;
    ``slots`` has their translations.
    """

    def __init__(self, maps: CarrierMaps, flows: CarriedFlows, slots: Slots) -> None:
        self._maps4 = maps.flows[TCP, 4]
        self._maps6 = maps.flows[TCP, 6]
        self._flows = flows
        self._slots = slots
        self._added = -1.0  # when the newest batch was added
        self._batch: dict[bytes, Translation] = {}  # the newest one: key → translation
        self._batches: deque[tuple[float, dict[bytes, Translation]]] = deque()  # the oldest first
        self._batch_of: dict[bytes, dict[bytes, Translation]] = {}

    def __contains__(self, key: bytes) -> bool:
        """Whether the entry with ``key`` is one of these."""
        return key in self._batch_of

    def add(self, key: bytes, translation: Translation, now: float) -> None:
        """The connection with ``key`` is closed: its entry stays LINGER seconds from ``now``."""
        self.discard(key)
        if now != self._added or not self._batches:
            self._added = now
            self._batch = {}
            self._batches.append((now + _LINGER, self._batch))
        self._batch[key] = translation
        self._batch_of[key] = self._batch

    def discard(self, key: bytes) -> None:
        """The entry with ``key`` is another connection's by now, if there is one."""
        batch = self._batch_of.pop(key, None)
        if batch is not None:
            del batch[key]

    def sync(self, now: float) -> None:
        """Remove entries that have stayed long enough; raises ``OSError``."""
        four: list[bytes] = []
        six: list[bytes] = []
        again: list[tuple[bytes, Translation]] = []
        left = _REMOVALS
        while left and self._batches:
            due, batch = self._batches[0]
            if due > now and len(self._batch_of) <= _MOST_CLOSED:
                break
            if not batch:
                self._batches.popleft()
                continue
            left -= 1
            key, translation = batch.popitem()
            del self._batch_of[key]
            flow: Flow | None = self._flows.table.forward[TCP].get(key)
            if flow is not None and flow.carried:
                continue  # the entry belongs to another flow by now
            entries, keys = (self._maps4, four) if len(key) == _KEY4 else (self._maps6, six)
            value = entries.get(key)
            if value is None:
                continue  # so has the alias, if there was one
            entry = FlowEntry.unpack(value)
            if not entry.flags & CLOSED or (due <= now and entry.seen + _FRESH > now):
                again.append((key, translation))
                continue
            keys.append(key)
            if entry.slot != translation.slot:  # a later connection, also closed
                translation = self._slots.find(entry.slot) or translation
            if translation.aliased:
                alias = translation.reverse_key(key)
                if self._flows.has_alias(entries, alias, translation):
                    keys.append(alias)
        for key, translation in again:
            self.add(key, translation, now)
        self._flows.discard_each(self._maps4, four)
        self._flows.discard_each(self._maps6, six)

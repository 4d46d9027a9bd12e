"""Restores the flows of a large journal while packets are handled already.

Restoring a million flows takes a second. So the records are first sorted into small groups, by the
client's address and port, which packets of both directions have. Each tick restores some groups. If
the flow of a packet is not in the table, the group of the client's address and port is restored
before the packet is handled. With ``affinity: client``, all flows of a client are in one group.
Sorting makes no object of a record, and reads each once, since all packets wait for it.

Lives here: ``Unread``, and ``begin``, which makes one unless all flows are to be restored at once.
Rules: a flow is in the table, or its record is in a group that is not read yet; a group is read
once. A lookup in the table's indexes reads the group first (``FlowIndex.missing``), so none misses
an unread flow: neither that of a packet, nor that of an entry of a carrier, nor that which tests
whether a backend's port is free. Places in the table are reserved for unread flows. Groups are
chosen by a keyed hash, so clients cannot fill one. A record does not change until it is read, so if
the process dies, the next one restores the flow.
"""

from __future__ import annotations

import secrets
import struct
import sys
from array import array
from collections.abc import Collection, MutableSequence
from contextlib import suppress
from typing import Final

from paraglider.core.compact_index import words
from paraglider.core.flow_table import FlowTable
from paraglider.core.journal import HEADER, RECORD, Journal
from paraglider.core.restore import BEAT, Adding, Beat, Restored, Translations, ignore

#: records up to which all flows are restored at once, in under 5 ms where that is compiled
AT_ONCE: Final = 4096
#: average flows in a group, at most: a packet waits until they are restored
GROUP: Final = 16

# In the compiled module, names with an underscore are C numbers and not importable.
_64_BITS: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio
# Places in the journal, in words of four bytes: from one record to the next, of the state, the
# identity and the key of record 0, and of its ports, in IPv4 and in IPv6.
_WORDS: Final = RECORD // 4
_STATE: Final = (HEADER - RECORD) // 4
_IDENTITY: Final = _STATE + 1
_KEY: Final = _STATE + 3
_PORTS4: Final = _KEY + 2
_PORTS6: Final = _KEY + 8
# Of a word, the first byte and the first two bytes.
_STATE_MASK: Final = int.from_bytes(b"\xff\0\0\0", sys.byteorder)
_PORT_SHIFT: Final = 0 if sys.byteorder == "little" else 16
_PORT_MASK: Final = 0xFFFF
_ADDRESS: Final = struct.Struct("=4I")
_PAIR: Final = struct.Struct("=2I")


class IdentitySet:
    """A set of identities of translations, found without objects: a table of free ``slots``, which
    are 0, half of it at least. Identities are hashes, so their bits choose the slot. ``any``: it is
    not empty.
    """

    __slots__ = ("any", "slots")

    def __init__(self, identities: Collection[bytes]) -> None:
        self.any = bool(identities)
        self.slots = words(1 << (2 * len(identities)).bit_length(), "Q")
        mask = len(self.slots) - 1
        for identity in identities:
            high, low = _PAIR.unpack(identity)
            slot = low & mask
            while self.slots[slot]:
                slot = slot + 1 & mask
            self.slots[slot] = high << 32 | low

    def has(self, high: int, low: int) -> bool:
        """Whether the identity with these two words is in the set."""
        wanted = high << 32 | low
        mask = len(self.slots) - 1
        slot = low & mask
        while self.slots[slot]:
            if self.slots[slot] == wanted:
                return True
            slot = slot + 1 & mask
        return False


def sort_records(
    journal: Journal,
    first: memoryview,
    after: memoryview,
    long: IdentitySet,
    factors: MutableSequence[int],
    by_client: bool,
    shift: int,
    highest: int,
    lowest: int,
) -> int:
    """Sort the records of ``journal`` from ``highest`` down to ``lowest`` into the groups of
    ``Unread``, and free those without a flow; returns how many have one. The lowest free record is
    the first to be used again.

    ``first`` has the first record of each group, ``after`` by each record the next of its group,
    ``long`` the identities of flows with addresses of 16 bytes. ``factors``, ``by_client`` and
    ``shift`` are those of ``group_of``. Has a compiled twin.
    """
    content, left = journal.words, 0
    for number in range(highest, lowest - 1, -1):
        at = number * _WORDS
        if not content[at + _STATE] & _STATE_MASK:
            journal.erase(number)
            continue
        second = third = fourth = 0
        if long.any and long.has(content[at + _IDENTITY], content[at + _IDENTITY + 1]):
            second, third = content[at + _KEY + 1], content[at + _KEY + 2]
            fourth = content[at + _KEY + 3]
            ports = content[at + _PORTS6]
        else:
            ports = content[at + _PORTS4]
        port = 0 if by_client else ports >> _PORT_SHIFT & _PORT_MASK
        group = group_of(content[at + _KEY], second, third, fourth, port, factors, shift)
        group &= len(first) - 1
        after[number] = first[group]
        first[group] = number
        left += 1
    return left


with suppress(ImportError):
    from paraglider.core._unread import sort_records  # the compiled twin


def group_of(
    first: int,
    second: int,
    third: int,
    fourth: int,
    port: int,
    factors: MutableSequence[int],
    shift: int,
) -> int:
    """The group of a client by the words of its address, in IPv4 one, and its port: multilinear
    hashing, as in ``CompactIndex``, and a multiplication more (Fibonacci hashing), or ports in a
    row would fill some groups by one factor in a thousand.
    """
    # A variable for a factor would cost as much as the sum.
    total = factors[0] * first + factors[1] * second
    total += factors[2] * third + factors[3] * fourth + factors[4] * port
    total &= _64_BITS
    return ((total ^ total >> 32) * _GOLDEN & _64_BITS) >> shift


class Unread:
    """The flows of ``journal``, a complete one, that are not yet in ``table``, which is empty at
    first. ``left`` is their number, ``read`` that of the others.
    """

    __slots__ = (
        "_adding",
        "_after",
        "_at",
        "_by_client",
        "_factors",
        "_first",
        "_journal",
        "_mask",
        "_shift",
        "_table",
        "left",
        "read",
    )

    def __init__(
        self,
        table: FlowTable,
        journal: Journal,
        translations: Translations,
        now: float,
        beat: Beat = ignore,
    ) -> None:
        journal.trim()
        highest = journal.highest
        bits = (highest // GROUP).bit_length()
        self._table = table
        self._journal = journal
        self._adding = Adding(table, journal, translations, now)
        self._shift = min(64 - bits, 63)  # a number of 64 bits cannot be shifted by 64
        self._mask = (1 << bits) - 1
        self._by_client = translations.with_affinity
        self._at = 0  # the groups before it were read
        self._factors = array("Q", (secrets.randbits(64) | 1 for _ in range(5)))
        #: the first record of each group, and by each record the next of its group; 0: none
        self._first = words(1 << bits)
        self._after = words(highest + 1, whole=True)
        self.read = self.left = 0
        long = IdentitySet(translations.long_identities)
        for end in range(highest, 0, -BEAT):
            beat()
            self.left += sort_records(
                journal,
                self._first,
                self._after,
                long,
                self._factors,
                self._by_client,
                self._shift,
                end,
                max(end - BEAT, 0) + 1,
            )

    @property
    def restored(self) -> Restored:
        """The numbers of flows restored and left out so far."""
        adding = self._adding
        refused = self.read - adding.kept - adding.unknown - adding.expired
        return Restored(adding.kept, adding.unknown, adding.expired, refused)

    def attach(self) -> None:
        """Have the table fetch unread flows from here, and reserve their places."""
        table = self._table
        table.unread, table.reserved = self, self.left
        for index in table.forward.values():
            index.missing = self.fetch
        for index in table.reverse.values():
            index.missing = self.fetch_reverse

    def fetch(self, key: bytes) -> None:
        """Restore the flow whose client's packets have ``key``, if it is unread."""
        size = (len(key) - 4) // 2
        self._fetch(key[:size], key[-4:-2])

    def fetch_reverse(self, key: bytes) -> None:
        """Restore the flow whose backend's packets have ``key``, if it is unread."""
        size = (len(key) - 4) // 2
        self._fetch(key[size : 2 * size], key[-2:])

    def step(self, flows: int = 1) -> int:
        """See ``flow_interfaces.UnreadFlows``."""
        before = self.read
        while self.left and self.read < before + flows:
            self._read(self._at)
            self._at += 1
        return self.read - before

    def finish(self) -> None:
        """See ``flow_interfaces.UnreadFlows``."""
        self.step(self.left)

    def _fetch(self, client: bytes, port: bytes) -> None:
        """Restore the group of a client's address and port."""
        first, second, third, fourth = _ADDRESS.unpack(client.ljust(_ADDRESS.size, b"\0"))
        number = 0 if self._by_client else int.from_bytes(port, sys.byteorder)
        group = group_of(first, second, third, fourth, number, self._factors, self._shift)
        self._read(group & self._mask)

    def _read(self, group: int) -> None:
        number = self._first[group]
        self._first[group] = 0  # first, since what is looked up meanwhile is of this group
        while number:
            record = self._journal.record(number)
            self.left -= 1
            self.read += 1
            self._table.reserved -= 1
            if record is not None:  # else the file was damaged meanwhile
                state, identity, content = record
                self._adding.add(number, state, identity, content)
            number = self._after[number]
        if not self.left:
            self._detach()

    def _detach(self) -> None:
        table = self._table
        table.unread = None
        for index in (*table.forward.values(), *table.reverse.values()):
            index.missing = None


def begin(
    table: FlowTable,
    journal: Journal,
    translations: Translations,
    now: float,
    beat: Beat = ignore,
) -> Unread | None:
    """Have the empty ``table`` restore the flows of ``journal`` when they are needed; None, and
    no flow restored, where they must be restored at once (``restore``): there are few, or more than
    places; the journal is not complete.
    ``beat`` as in ``restore``.
    """
    if not journal.complete or journal.highest <= AT_ONCE:
        return None
    table.journal = journal
    unread = Unread(table, journal, translations, now, beat)
    if not 0 < unread.left <= table.bound:
        return None
    journal.tick(now)
    unread.attach()
    return unread

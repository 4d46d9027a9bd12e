"""The journal: the state of all live flows in memory that outlives the process.

A header and one record of fixed size per flow. Records are written in place when a flow begins,
changes its state or ends, so the journal is always current, needs no compaction and never grows
beyond the bound of the flow table. The memory is a mapped file (``host.journal_files``): a write
costs no system call, and is preserved however the process ends.

    header   magic, version, bytes per record, records, highest used record, boot, alive, complete
    record   0      state (``flow_states``) + 1; 0: free, and bytes 4-8 are the number of the next
                    free record
             4-12   identity of the translation (``Translation.identity``): service and backend
             12-48  the key of the client's packets (12 bytes in IPv4, 36 in IPv6)

Rules: a record's first byte is written last, and the highest used record after it, so an incomplete
record is ignored. Numbers are in the machine's byte order: a journal belongs to one boot of one
machine. It has no time of the last packet, because packets of established flows must not cost a
write; ``alive``, written periodically, is the latest time at which a flow can have been seen.
Records are numbered from 1; 0 means none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

MAGIC: Final = b"PGLEDGER"
VERSION: Final = 2
#: versions that can be read. Version 1 had states up to 6; its state of closing flows, 3, is now
#: that of flows that wait for the last ACK
READABLE: Final = frozenset((1, VERSION))

HEADER: Final = 64
RECORD: Final = 48
# In the compiled module, names with an underscore are C numbers and not importable.
_SIZE: Final = RECORD
_IDENTITY: Final = 4  # places in a record
_KEY: Final = 12
_FIRST: Final = HEADER - RECORD  # where record 0 would be
_WORDS: Final = RECORD // 4
_LINK: Final = _FIRST // 4 + 1  # the next free record's number, in words

_FIELDS: Final = struct.Struct("=B3x8s36s")  # of a record: state + 1, identity, key
_FIXED: Final = struct.Struct("=8sIII")  # magic, version, bytes a record, records
_RECORDS: Final = 4  # places in the header, in words of four bytes
_HIGH: Final = 5
_COMPLETE: Final = 12
_BOOT: Final = slice(24, 40)
_ALIVE: Final = 5  # in words of eight bytes

#: records for which memory is reserved at a time
PORTION: Final = 4096

#: reserves memory for the bytes from start to end; returns False if there is none
Reserve = Callable[[int, int], bool]


def size_of(records: int) -> int:
    """The size in bytes of a journal with ``records`` records."""
    return HEADER + RECORD * records


def fault_of(
    buffer: bytes | bytearray | memoryview, boot: bytes, length: int | None = None
) -> str | None:
    """Why ``buffer`` is not a readable journal, or None. ``boot`` is the id of this boot;
    ``length`` is the size of the file if ``buffer`` has only its header.
    """
    if len(buffer) < HEADER:
        return "it is cut"
    magic, version, record, records = _FIXED.unpack_from(buffer)
    if magic != MAGIC:
        return "it is no journal"
    if version not in READABLE or record != RECORD:
        return f"it is of another version ({version}, {record} bytes a flow)"
    if bytes(buffer[_BOOT]) != boot:
        return "it is of an earlier boot"
    if (len(buffer) if length is None else length) < size_of(records):
        return "it is cut"
    if struct.unpack_from("=I", buffer, 4 * _HIGH)[0] > records:
        return "it is damaged"
    return None


def records_of(buffer: bytes | bytearray | memoryview) -> int:
    """The number of records in a journal's header."""
    return int(_FIXED.unpack_from(buffer)[3])


def write_header(buffer: bytearray | memoryview, records: int, boot: bytes) -> None:
    """Write the header of an empty journal, or of one that has grown; ``boot`` has 16 bytes."""
    struct.pack_into("=16s", buffer, _BOOT.start, boot)
    _FIXED.pack_into(buffer, 0, MAGIC, VERSION, RECORD, records)


def renew(buffer: bytearray | memoryview) -> None:
    """Set the version of a journal of any READABLE version to the present one; records stay."""
    struct.pack_into("=I", buffer, len(MAGIC), VERSION)


class Journal:
    """The journal of one flow table in ``buffer``, which has passed ``fault_of``.

    ``unwritten`` counts flows for which there was no memory: they are carried, but lost at a
    restart. ``view`` and ``words`` are its bytes, and its words of four bytes, for those that read
    all records.
    """

    def __init__(self, buffer: bytearray | memoryview, reserve: Reserve | None = None) -> None:
        self._bytes = memoryview(buffer).cast("B")
        self.view = self._bytes
        self.words = self._bytes[: len(self._bytes) // 4 * 4].cast("I")
        self._clock = self._bytes[:HEADER].cast("d")
        self.records = self.words[_RECORDS]
        self._reserve = reserve
        self._reserved = self._high = self.words[_HIGH]
        self._refused = False
        self._free = 0
        self.unwritten = 0

    @property
    def complete(self) -> bool:
        """Whether all flows of the predecessor were taken over; until then it counts as empty."""
        return self.words[_COMPLETE] == 1

    @complete.setter
    def complete(self, complete: bool) -> None:
        self.words[_COMPLETE] = complete

    @property
    def alive(self) -> float:
        """The time of the worker's last ``tick`` (monotonic seconds)."""
        return self._clock[_ALIVE]

    def tick(self, now: float) -> None:
        """Record that the worker is alive at ``now``; called periodically."""
        self._clock[_ALIVE] = now
        self._refused = False  # there may be memory again

    def write(self, identity: bytes, key: bytes, state: int) -> int:
        """Write a flow; returns the number of its record, or 0 if there is no memory."""
        number = self._free
        if 0 < number <= self._high:  # else damaged: free records are lost until a restart
            self._free = self.words[number * _WORDS + _LINK]
            self._fill(number, identity, key, state)
            return number
        number = self._high + 1
        if number > self._reserved and not self._more():
            self.unwritten += 1
            return 0
        self._fill(number, identity, key, state)
        self._high = number
        self.words[_HIGH] = number
        return number

    def move(self, number: int, state: int) -> None:
        """Change the state of a record."""
        self.view[number * _SIZE + _FIRST] = state + 1

    def erase(self, number: int) -> None:
        """Free the record of a flow that has ended."""
        self.view[number * _SIZE + _FIRST] = 0
        self.words[number * _WORDS + _LINK] = self._free
        self._free = number

    def read(self) -> Iterator[tuple[int, int, bytes, bytes]]:
        """All flows: number, state, identity, and the key padded with undefined bytes."""
        records = self._bytes[HEADER : size_of(self._high)]
        for number, (state, identity, key) in enumerate(_FIELDS.iter_unpack(records), 1):
            if state:
                yield number, state - 1, identity, key

    def record(self, number: int) -> tuple[int, bytes, bytes] | None:
        """State, identity and padded key of the flow in a record; None if it has none."""
        state, identity, key = _FIELDS.unpack_from(self._bytes, number * RECORD + HEADER - RECORD)
        return (state - 1, identity, key) if state else None

    def has_client(self, number: int, key: bytes, reverse: bool) -> bool:
        """Whether a record's key has the client's address and port of ``key``, a client's packet's
        or, ``reverse``, a backend's.
        """
        size = (len(key) - 4) // 2
        at = number * _SIZE + _FIRST + _KEY
        ports = 2 * size
        other = size if reverse else 0
        port = ports + 2 if reverse else ports
        if self.view[at + ports + 1] != (key[port + 1] & 0xFF):  # which differs most often
            return False
        if self.view[at + ports] != (key[port] & 0xFF):
            return False
        byte = 0
        while byte < size and self.view[at + byte] == (key[other + byte] & 0xFF):
            byte += 1
        return byte == size

    @property
    def highest(self) -> int:
        """The highest record that was ever used."""
        return self._high

    def reclaim(self) -> None:
        """Rebuild the list of free records; to be called once, before the first ``write``."""
        self.trim()
        for number in range(self._high, 0, -1):
            if not self.view[number * _SIZE + _FIRST]:
                self.erase(number)

    def trim(self) -> None:
        """Set the highest used record; no free record is listed then."""
        while self._high and not self.view[self._high * _SIZE + _FIRST]:
            self._high -= 1
        self.words[_HIGH] = self._high
        self._free = 0

    def clear(self) -> None:
        """Remove all flows."""
        self.words[_HIGH] = self._high = self._free = 0

    def reset(self) -> None:
        """Start anew: ``buffer`` has been replaced by an empty journal."""
        self.words[_COMPLETE] = 0
        self._reserved = 0
        self._refused = False
        self.clear()

    def _fill(self, number: int, identity: bytes, key: bytes, state: int) -> None:
        at = number * _SIZE + _FIRST
        self._bytes[at + _IDENTITY : at + _KEY + len(key)] = identity + key
        self.view[at] = state + 1

    def _more(self) -> bool:
        """Reserve memory for another portion of records; after a failure not before ``tick``."""
        if self._refused or self._reserved >= self.records:
            return False
        until = min(self._reserved + PORTION, self.records)
        if self._reserve is not None and not self._reserve(size_of(self._reserved), size_of(until)):
            self._refused = True
            return False
        self._reserved = until
        return True

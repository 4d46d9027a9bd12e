"""The journal: what must be known of every live flow to carry it on, in memory that outlives us.

A header and one record of fixed size a flow, written in place when a flow begins, changes its
state or ends, so it is current at every instant, needs no compaction and never grows beyond the
bound of the flows. The memory is a file's (``host.journal_files``), mapped: writing to it costs no
system call, and what was written is there however the process ends.

    header   magic, version, bytes a record, records, the highest one used, boot, alive, complete
    record   0      state (``flow_states``) + 1; 0: free, and then bytes 4-8 are the number of the
                    next free one
             4-12   identity of the translation (``Translation.identity``): service and backend
             12-48  the key of the client's packets (12 bytes in IPv4, 36 in IPv6)

Rules: a record's first byte is written last, and the highest record used after it, so a record
counts only when it is whole. Numbers are in the machine's own order: a journal belongs to one boot
of one machine. When a flow was last seen is not in it, since no packet of an established flow may
cost anything here; ``alive``, written by the clock, is when any of them can have been seen at
the latest. Records are numbered from 1; 0 is none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

MAGIC: Final = b"PGLEDGER"
VERSION: Final = 2
#: versions that can be read. 1 knew states up to 6 alone, and the one that closing flows had, 3, is
#: that of flows which wait for their last ACK
READABLE: Final = frozenset((1, VERSION))

HEADER: Final = 64
RECORD: Final = 48
# Where this is compiled, the names with an underscore are C numbers, and seen by nobody else.
_SIZE: Final = RECORD
_IDENTITY: Final = 4  # places in a record
_KEY: Final = 12
_FIRST: Final = HEADER - RECORD  # where record 0 would be
_WORDS: Final = RECORD // 4
_LINK: Final = _FIRST // 4 + 1  # the next free record's number, in words

_FIXED: Final = struct.Struct("=8sIII")  # magic, version, bytes a record, records
_RECORDS: Final = 4  # places in the header, in words of four bytes
_HIGH: Final = 5
_COMPLETE: Final = 12
_BOOT: Final = slice(24, 40)
_ALIVE: Final = 5  # in words of eight bytes

#: records for which memory is asked at a time
PORTION: Final = 4096

#: sees to it that bytes from one to another place have memory behind them; False: there is none
Reserve = Callable[[int, int], bool]


def size_of(records: int) -> int:
    """Bytes of a journal with so many records."""
    return HEADER + RECORD * records


def fault_of(
    buffer: bytes | bytearray | memoryview, boot: bytes, length: int | None = None
) -> str | None:
    """Why ``buffer`` holds no journal that can be read, or None. ``boot`` is this boot's id,
    ``length`` the bytes that there are where ``buffer`` is the head alone.
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
    """How many records a journal has, as its header says."""
    return int(_FIXED.unpack_from(buffer)[3])


def write_header(buffer: bytearray | memoryview, records: int, boot: bytes) -> None:
    """Make ``buffer`` an empty journal, or one with more records; ``boot`` has 16 bytes."""
    struct.pack_into("=16s", buffer, _BOOT.start, boot)
    _FIXED.pack_into(buffer, 0, MAGIC, VERSION, RECORD, records)


def renew(buffer: bytearray | memoryview) -> None:
    """Make a journal of any READABLE version one of this version; its records stay as they are."""
    struct.pack_into("=I", buffer, len(MAGIC), VERSION)


class Journal:
    """The journal in ``buffer``, which ``fault_of`` finds no fault with, for one flow table.

    ``unwritten`` counts flows that had no memory: they are carried, but not known after a restart.
    """

    def __init__(self, buffer: bytearray | memoryview, reserve: Reserve | None = None) -> None:
        self._bytes = memoryview(buffer).cast("B")
        self._view = self._bytes
        self._words = self._bytes[: len(self._bytes) // 4 * 4].cast("I")
        self._clock = self._bytes[:HEADER].cast("d")
        self.records = self._words[_RECORDS]
        self._reserve = reserve
        self._reserved = self._high = self._words[_HIGH]
        self._refused = False
        self._free = 0
        self.unwritten = 0

    @property
    def complete(self) -> bool:
        """Whether what was to be taken over is in it: without that it counts as empty."""
        return self._words[_COMPLETE] == 1

    @complete.setter
    def complete(self, complete: bool) -> None:
        self._words[_COMPLETE] = complete

    @property
    def alive(self) -> float:
        """Until when its worker lived (monotonic seconds, as ``tick`` was told)."""
        return self._clock[_ALIVE]

    def tick(self, now: float) -> None:
        """The worker lives; called by the clock."""
        self._clock[_ALIVE] = now
        self._refused = False  # there may be memory again

    def write(self, identity: bytes, key: bytes, state: int) -> int:
        """Enter a flow; the number of its record, or 0 where there is no memory."""
        number = self._free
        if 0 < number <= self._high:  # else somebody wrote over it: the rest is found at a restart
            self._free = self._words[number * _WORDS + _LINK]
            self._fill(number, identity, key, state)
            return number
        number = self._high + 1
        if number > self._reserved and not self._more():
            self.unwritten += 1
            return 0
        self._fill(number, identity, key, state)
        self._high = number
        self._words[_HIGH] = number
        return number

    def move(self, number: int, state: int) -> None:
        """The flow of a record is in another state."""
        self._view[number * _SIZE + _FIRST] = state + 1

    def erase(self, number: int) -> None:
        """The flow of a record is over: the next flow may have it."""
        self._view[number * _SIZE + _FIRST] = 0
        self._words[number * _WORDS + _LINK] = self._free
        self._free = number

    def read(self) -> Iterator[tuple[int, int, bytes, bytes]]:
        """All flows: number, state, identity, and the key with bytes of no meaning behind it."""
        content = self._bytes
        for number in range(1, self._high + 1):
            at = number * _SIZE + _FIRST
            if content[at]:
                identity = bytes(content[at + _IDENTITY : at + _KEY])
                yield number, content[at] - 1, identity, bytes(content[at + _KEY : at + _SIZE])

    def reclaim(self) -> None:
        """Find the free records again; to be called once, before the first ``write``."""
        content = self._bytes
        while self._high and not content[self._high * _SIZE + _FIRST]:
            self._high -= 1
        self._words[_HIGH] = self._high
        self._free = 0
        for number in range(self._high, 0, -1):
            if not content[number * _SIZE + _FIRST]:
                self.erase(number)

    def clear(self) -> None:
        """Forget all flows."""
        self._words[_HIGH] = self._high = self._free = 0

    def reset(self) -> None:
        """Be the empty journal that ``buffer`` has become in the meantime."""
        self._words[_COMPLETE] = 0
        self._reserved = 0
        self._refused = False
        self.clear()

    def _fill(self, number: int, identity: bytes, key: bytes, state: int) -> None:
        at = number * _SIZE + _FIRST
        self._bytes[at + _IDENTITY : at + _KEY + len(key)] = identity + key
        self._view[at] = state + 1

    def _more(self) -> bool:
        """Ask for memory for another portion of records; no more than once a ``tick`` in vain."""
        if self._refused or self._reserved >= self.records:
            return False
        until = min(self._reserved + PORTION, self.records)
        if self._reserve is not None and not self._reserve(size_of(self._reserved), size_of(until)):
            self._refused = True
            return False
        self._reserved = until
        return True

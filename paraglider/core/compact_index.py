"""Finds the journal's records of compact flows (``compact``) by the client's end of a key.

The client's address and port are in the keys of both directions of a flow, so one index serves
both. A record has 8 bytes here: the next record of its group, the number of its translation, and
its share of the groups.

Lives here: ``CompactIndex``, ``words``.
Rules: a record is added once until it is removed. One whose key was damaged meanwhile cannot be
found in its group: it stays there, not to be found, until the index is empty. Groups are chosen by
a keyed hash, so that clients cannot fill one. All memory is reserved at once and used as far as
records are, so nothing is copied while the index grows.
"""

from __future__ import annotations

import secrets
from array import array
from contextlib import suppress
from mmap import MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final

from paraglider.core.journal import Journal

#: numbers of translations: from 1
MOST_TRANSLATIONS: Final = (1 << 16) - 2

# In the compiled module, names with an underscore are C numbers and not importable.
#: in place of the number of a removed record that is still in a group
_DAMAGED: Final = MOST_TRANSLATIONS + 1
_MASK: Final = (1 << 64) - 1
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE of asm-generic/mman-common.h, Linux 5.14


def words(count: int, form: str = "I", *, whole: bool = False) -> memoryview:
    """``count`` zeros of the ``form`` of ``struct``, in memory that is used when written;
    ``whole``: all will be, soon.
    """
    size = count * array(form).itemsize
    memory = mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS)  # a bytearray would be written to
    if whole:  # a fault for each page would take half as long as sorting a million records
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(MADV_HUGEPAGE)
    return memoryview(memory).cast(form)  # type: ignore[call-overload, no-any-return]


def populate(memory: memoryview, begin: int, end: int) -> None:
    """Have the kernel provide the bytes from ``begin``, that of a page, to ``end`` of the
    ``memory`` of ``words`` now: it takes a fourth of the time of a fault for each page.
    """
    with suppress(OSError):  # before Linux 5.14, which provides them as they are used
        memory.obj.madvise(_POPULATE_WRITE, begin, end - begin)  # type: ignore[attr-defined]


class CompactIndex:
    """The records of ``journal`` that were added. ``count`` is their number. ``memory`` has what is
    used as far as records are, with the bytes of a record, 0: all of it, by any record.
    """

    def __init__(self, journal: Journal) -> None:
        records = journal.records
        bits = max(records - 1, 2).bit_length() - 1  # up to two records a group
        self.count = 0
        self._damaged = 0
        self._journal = journal
        self._shift = 64 - bits
        #: the first record of each group, and by each record the next of its group; 0: none
        first, after, numbers = words(1 << bits), words(records + 1), words(records + 1, "H")
        self._first, self._after, self._numbers = first, after, numbers
        self.memory = (first, 0), (after, 4), (numbers, 2)
        self._factors = array("Q", (secrets.randbits(64) | 1 for _ in range(5)))

    def add(self, record: int, key: bytes, number: int) -> None:
        """Add the ``record`` of the flow with the client's ``key`` and translation ``number``."""
        group = self._group(key, False)
        self._after[record] = self._first[group]
        self._first[group] = record
        self._numbers[record] = number
        self.count += 1

    def may_add(self, record: int) -> bool:
        """Whether ``record`` is neither in the index nor left in a group."""
        return not self._numbers[record]

    def number(self, record: int) -> int:
        """The number of the translation of ``record``; 0 if it is not in the index."""
        number = self._numbers[record]
        return 0 if number == _DAMAGED else number

    def find(self, key: bytes, reverse: bool) -> int:
        """A record of a flow with the client's end of ``key``, a client's packet's or, ``reverse``,
        a backend's; 0 without one.
        """
        record = self._first[self._group(key, reverse)]
        while record and (
            not self._journal.has_client(record, key, reverse) or self._numbers[record] == _DAMAGED
        ):
            record = self._after[record]
        return record

    def remove(self, record: int, key: bytes) -> None:
        """Remove ``record``, which was added with ``key``, unless that was damaged."""
        self.count -= 1
        if self._unlink(self._group(key, False), record):
            self._numbers[record] = 0
        else:  # a search through all groups would take milliseconds
            self._numbers[record] = _DAMAGED
            self._damaged += 1
        if self._damaged and not self.count:
            self._damaged = 0
            self._first = words(len(self._first))
            self._numbers = words(len(self._numbers), "H")

    def next(self, record: int) -> int:
        """The next record in the index behind ``record``; 0 if there is none."""
        highest = self._journal.highest
        for following in range(record + 1, highest + 1):
            if self.number(following):
                return following
        return 0

    def _unlink(self, group: int, record: int) -> bool:
        """Take ``record`` out of ``group``; False if it is not in it."""
        before = 0
        found = self._first[group]
        while found and found != record:
            before = found
            found = self._after[found]
        if not found:
            return False
        if before:
            self._after[before] = self._after[record]
        else:
            self._first[group] = self._after[record]
        return True

    def _group(self, key: bytes, reverse: bool) -> int:
        """The group of the client's end of ``key``: multilinear hashing of its words (Lemire and
        Kaser, "Strongly universal string hashing is fast", 2014).
        """
        size = (len(key) - 4) // 2
        at = size if reverse else 0
        port = 2 * size + 2 if reverse else 2 * size
        total = self._factors[0] * ((key[port] & 0xFF) << 8 | (key[port + 1] & 0xFF))
        for word in range(1, size // 4 + 1):
            number = 0
            for _ in range(4):
                number = number << 8 | (key[at] & 0xFF)  # compiled, a byte has a sign
                at += 1
            total += self._factors[word] * number
        return (total & _MASK) >> self._shift

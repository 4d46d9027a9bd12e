"""Events of the program, from a ring buffer of the kernel; ``_maps`` has a compiled version.

Lives here: ``Ring`` and ``open_ring``.
Rules: a ring has one reader. Its position is stored in the ring itself, so the next process
continues where the last one stopped. See Documentation/bpf/ringbuf.rst.
"""

from __future__ import annotations

import ctypes
import mmap
import struct

_BUSY = 0x8000_0000  # BPF_RINGBUF_BUSY_BIT: being written
_DISCARDED = 0x4000_0000  # BPF_RINGBUF_DISCARD_BIT
_HEAD = 8  # of a record: its length and flags, and a page number


class Ring:
    """The ring buffer with descriptor ``fd``, of ``size`` bytes; raises ``OSError``."""

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._mask = size - 1
        self._own = mmap.mmap(fd, page)
        # The data are mapped twice in a row, so that no record is split.
        self._data = mmap.mmap(fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        self._consumer = ctypes.c_uint64.from_buffer(self._own)
        self._start = page

    def read(self, most: int) -> list[bytes]:
        """Up to ``most`` records, the oldest first; does not wait."""
        # Native formats: one load of eight bytes each, as the kernel stores them.
        position, end = self._consumer.value, struct.unpack_from("@Q", self._data, 0)[0]
        found: list[bytes] = []
        while position < end and len(found) < most:
            at = self._start + (position & self._mask)
            head = struct.unpack_from("@I", self._data, at)[0]
            if head & _BUSY:
                break
            size = head & ~_DISCARDED
            if not head & _DISCARDED:
                found.append(self._data[at + _HEAD : at + _HEAD + size])
            position += (size + _HEAD + 7) & ~7
        self._consumer.value = position
        return found

    def close(self) -> None:
        """Unmap the ring; the descriptor stays open."""
        del self._consumer
        self._own.close()
        self._data.close()


try:
    from paraglider.bpf._maps import Ring as CompiledRing
except ImportError:
    CompiledRing = Ring  # type: ignore[misc]


def open_ring(fd: int, size: int) -> Ring:
    """The compiled ring if it was built, else the interpreted one; raises ``OSError``."""
    compiled: Ring = CompiledRing(fd, size)
    return compiled

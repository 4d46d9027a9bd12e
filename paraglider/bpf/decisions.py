"""The decisions about new flows that the program makes: for each service a record and a table.

Lives here: ``Decisions``, ``DecisionStatus``, ``open_decisions``.
Rules: one process writes. Records and tables are written in memory that the kernel shares, so that
a process without privileges can do it. A table is written beside the present one; then one word of
the record names it (``elements.publish``), so the program picks from the old table or from the new
one: it reads the slots at addresses that it computes from the word, so on no CPU does it read them
before the word. A table without slots means that the program does not decide. Records outlast the
process: another one continues with them.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import or_, xor
from struct import Struct
from typing import Final, NamedTuple

from paraglider.bpf.layout import (
    DECISION,
    DECISIONS,
    INDEX,
    ROW_SLOTS,
    SERVICE,
    SLOT,
    STEERING,
    TABLE_ROWS,
    WITHOUT_FLOWS,
)
from paraglider.bpf.maps import CarrierMaps, Map

try:
    from paraglider.bpf._maps import publish
except ImportError:
    from paraglider.bpf.elements import publish

_WORDS: Final = DECISION.size // 8
#: what ``configure`` writes, and its offset in a record: key, bound, kind and flags
_KEY: Final = (Struct("@QQ"), 8)
_BOUND: Final = (Struct("@I"), 28)
_KIND: Final = (Struct("@BB"), 44)
_NAME_AT: Final = 48
_NAME_SIZE: Final = 8


class DecisionStatus(NamedTuple):
    """What the program records: the next ``turn``; how many flows unknown clients ``opened`` in the
    tick ``tick``; the tick of the last opening without an entry (``stateless``), 0 for none.
    """

    turn: int
    tick: int
    opened: int
    stateless: int


class Decisions:
    """The decisions in ``records`` and ``tables``, writable memory with the values of the maps of
    these names; ``services`` maps the keys of services to the indices of their decisions.

    A decision has an index, which is claimed by the name of its service.
    """

    def __init__(
        self,
        services: Map,
        steering: Map,
        records: bytearray | mmap.mmap,
        tables: bytearray | mmap.mmap,
    ) -> None:
        self._services = services
        self._steering = steering
        self._memory = (records, tables)
        self._records = memoryview(records)
        self._words = self._records.cast("Q")
        self._slots = memoryview(tables).cast("H")
        self._names = dict(self._present())
        #: the slots of the present table of each index, and of that before it
        self._regions: dict[int, tuple[tuple[int, int], ...]] = {
            index: (self._region(index),) for index in self._names.values()
        }
        self._without_room: set[int] = set()  # after the last ``write``
        self._indices: dict[bytes, int] = {}
        for keys, values, count in services.dump():
            size = len(keys) // count
            for at in range(count):
                (self._indices[keys[at * size : (at + 1) * size]],) = INDEX.unpack_from(
                    values, at * INDEX.size
                )

    def close(self) -> None:
        """Unmap the memory; the decisions stay in the kernel."""
        for view in (self._words, self._records, self._slots):
            view.release()
        for memory in self._memory:
            if isinstance(memory, mmap.mmap):
                memory.close()

    def names(self) -> tuple[bytes, ...]:
        """The names of all decisions, also those of an earlier process."""
        return tuple(self._names)

    def claim(self, name: bytes) -> int | None:
        """The index of the decision ``name`` (8 bytes, not all 0), created if it does not exist;
        None if all indices are in use.
        """
        if name in self._names:
            return self._names[name]
        used = set(self._names.values())
        index = next((one for one in range(1, DECISIONS) if one not in used), None)
        if index is not None:
            at = index * DECISION.size
            self._records[at : at + DECISION.size] = bytes(DECISION.size)
            self._records[at + _NAME_AT : at + _NAME_AT + _NAME_SIZE] = name
            self._names[name] = index
            self._regions[index] = ()
        return index

    def configure(
        self,
        index: int,
        kind: int,
        hash_key: tuple[int, int] = (0, 0),
        bound: int = 0,
        flags: int = 0,
    ) -> None:
        """Set how the program picks (``layout.BY_CLIENT``, …), the key of its hash, how many
        openings of unknown clients get an entry in a tick, and the flags (``layout.NO_ENTRIES``,
        ``STEERED_BY_CLIENT``, and DIRECT for each of its flows).

        A change of anything but ``bound`` clears the table, and the flag WITHOUT_FLOWS.
        """
        at = index * DECISION.size
        (key, key_at), (form, kind_at) = _KEY, _KIND
        present = (
            key.unpack_from(self._records, at + key_at),
            self._records[at + kind_at],
            self._records[at + kind_at + 1] & ~WITHOUT_FLOWS,
        )
        if present != (hash_key, kind, flags):
            self.clear(index)
            key.pack_into(self._records, at + key_at, *hash_key)
            form.pack_into(self._records, at + kind_at, kind, flags)
        _BOUND[0].pack_into(self._records, at + _BOUND[1], bound)

    def without_flows(self, index: int) -> bool:
        """Whether the program does not ask the maps of flows for packets of the service."""
        at = index * DECISION.size + _KIND[1] + 1
        return bool(self._records[at] & WITHOUT_FLOWS)

    def set_without_flows(self, index: int, on: bool) -> None:
        """Set whether the program asks them; it must if a flow of the service may have an entry."""
        at = index * DECISION.size + _KIND[1] + 1
        flags = self._records[at] & ~WITHOUT_FLOWS
        self._records[at] = flags | WITHOUT_FLOWS if on else flags

    def write(self, index: int, slots: array[int]) -> bool:
        """Have the program pick from ``slots``: indices of translations, 0 for no translation.

        Returns False if there is no room for them, or no slot; then the program does not decide.
        """
        if len(slots) and self.read(index) == slots:
            return True
        present = self._region(index)
        if present[1] or index in self._without_room:  # else it may have been cleared just now
            self._regions[index] = (present,)
        self._without_room.discard(index)
        first = self._free_region(len(slots)) if len(slots) else None
        if first is None:
            self._without_room.add(index)
            self.clear(index)
            return False
        self._slots[first : first + len(slots)] = memoryview(slots)
        self._set_table(index, (first, len(slots)))
        return True

    def read(self, index: int) -> array[int]:
        """The slots that the program picks from; empty if it does not decide."""
        first, size = self._region(index)
        return array("H", self._slots[first : first + size])

    def clear(self, index: int) -> None:
        """Remove the table: a worker decides from now on."""
        if self._region(index)[1]:
            self._set_table(index, (0, 0))

    def release(self, index: int) -> None:
        """Forget the decision, which no service uses any more."""
        self.clear(index)
        at = index * DECISION.size
        self._records[at : at + DECISION.size] = bytes(DECISION.size)
        self._names = {name: one for name, one in self._names.items() if one != index}
        del self._regions[index]
        self._without_room.discard(index)

    def set_services(self, services: Mapping[bytes, int]) -> None:
        """Have the program decide for exactly ``services``: the index of the decision by the key
        of the service (``layout.SERVICE``). Raises ``OSError`` if the kernel refuses; a worker
        decides for the missing ones then.

        Keys of all ports are added last and removed first: while a key of a single port of their
        VIP is missing, the program would take its packets for theirs.
        """
        for key in sorted(self._indices.keys() - services.keys(), key=_is_single):
            self._services.delete(key)
            del self._indices[key]
        for key, index in sorted(services.items(), key=lambda each: not _is_single(each[0])):
            if self._indices.get(key) != index:
                self._services.put(key, INDEX.pack(index))
                self._indices[key] = index

    def set_steering(
        self, family: int, seed: int, workers: int, by_hash: Iterable[bytes] = ()
    ) -> None:
        """Set how the packets of ``family`` are steered; with 0 ``workers`` nothing is decided.
        ``by_hash`` are the VIPs whose decisions may have the flag WITHOUT_FLOWS.

        Raises ``OSError``.
        """
        bits = reduce(or_, (1 << (reduce(xor, vip) & 31) for vip in by_hash), 0)
        value = STEERING.pack(seed, workers, bits)
        self._steering.put(INDEX.pack(0 if family == 4 else 1), value)

    def status(self, index: int) -> DecisionStatus:
        """What the program has recorded for the decision."""
        _, _, _, turn, _, tick, opened, stateless, *_ = DECISION.unpack_from(
            self._records, index * DECISION.size
        )
        return DecisionStatus(turn, tick, opened, stateless)

    def _present(self) -> Iterator[tuple[bytes, int]]:
        for index in range(1, DECISIONS):
            at = index * DECISION.size + _NAME_AT
            name = bytes(self._records[at : at + _NAME_SIZE])
            if any(name):
                yield name, index

    def _region(self, index: int) -> tuple[int, int]:
        """First slot and number of slots of the present table."""
        word = self._words[index * _WORDS]
        return word >> 32, word & 0xFFFFFFFF

    def _set_table(self, index: int, region: tuple[int, int]) -> None:
        """Switch to the table in ``region``. The region of the table before it is not used until
        the next change, since the program may be reading it.
        """
        before = self._region(index)
        publish(self._words, index * _WORDS, region[0] << 32 | region[1])
        self._regions[index] = (region, before)

    def largest_region(self) -> int:
        """The most slots that a new table can have."""
        return max(size for _, size in self._gaps())

    def _free_region(self, size: int) -> int | None:
        """The first slot of a free region of ``size`` slots, or None."""
        return next((first for first, free in self._gaps() if free >= size), None)

    def _gaps(self) -> Iterator[tuple[int, int]]:
        """First slot and size of each free region: before and between the tables, and after the
        last one even if that has no slot.
        """
        first = 0
        for start, length in sorted(one for some in self._regions.values() for one in some):
            if length and start > first:
                yield first, start - first
            first = max(first, start + length)
        yield first, len(self._slots) - first


def _is_single(key: bytes) -> bool:
    """Whether the key of a service is that of a single port."""
    _, port, *_ = SERVICE.unpack(key)
    return any(port)


def open_decisions(maps: CarrierMaps) -> Decisions:
    """The decisions of ``maps``, for the one process that writes them; raises ``OSError``."""
    records = mmap.mmap(maps.decisions.fd, DECISIONS * DECISION.size)
    tables = mmap.mmap(maps.tables.fd, TABLE_ROWS * ROW_SLOTS * SLOT.size)
    return Decisions(maps.services, maps.steering, records, tables)

"""Frees the slots of removed backends, while workers start, exit and change their services.

    used ──retire──▶ RETIRED ──QUARANTINE, no entry──▶ free
      ◀──── a worker that holds it restores its name (``Slots.verify``)

The first worker retires the slots that it does not hold and that no entry refers to. Another worker
may hold such a slot: it may have a flow without an entry, or another configuration. Each worker
verifies all its slots within half of the quarantine, so a slot that is still retired at the end is
held by no worker. None can claim it meanwhile, since a slot is claimed by its name or while free.

At a daemon's start no worker holds a slot, so there is no quarantine.

Lives here: ``SlotReclaimer``, and ``make_room``, for the start.
Rules: the number of entries and slots in one step is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from paraglider.bpf.layout import INDEX, TRANSLATION, TRANSLATIONS
from paraglider.bpf.maps import CarrierMaps
from paraglider.config.model import Config
from paraglider.forward.bpf.entry import FlowEntry
from paraglider.forward.bpf.slot_names import slot_names
from paraglider.forward.bpf.slots import CHUNK, RETIRED, VERIFIED_WITHIN, UsedSlots

#: seconds from a slot's retirement to its release
QUARANTINE: Final = 2 * VERIFIED_WITHIN
#: seconds between two searches without a change of the services
INTERVAL: Final = 3600.0
#: slots in use above which unused ones are freed at the start
CROWDED: Final = TRANSLATIONS * 3 // 4


def make_room(maps: CarrierMaps, config: Config) -> None:
    """Free the slots of services and backends that ``config`` lacks, except those that entries
    refer to, if its own would be short of room. Only while no worker runs. Raises ``OSError``.
    """
    present, wanted = UsedSlots.read(maps), slot_names(config)
    held = {index for name, index in present.indices.items() if name in wanted}
    if len(present.used) + len(wanted) - len(held) > CROWDED:
        SlotReclaimer(maps, lambda: held).free_at_once()


class SlotReclaimer:
    """Reclaims the slots in ``maps`` that are not among ``held``, those of this worker."""

    def __init__(self, maps: CarrierMaps, held: Callable[[], set[int]]) -> None:
        self._maps = maps
        self._held = held
        self._retired: set[int] = set()
        self._now = self._next = 0.0
        self._under_way = self._requested = False

    def request(self) -> None:
        """Search with the next task, since services have changed: after a search that is under way
        and its quarantine.
        """
        self._requested = True
        if not self._retired and not self._under_way:
            self._next = self._now

    def next_task(self, now: float) -> Iterator[None] | None:
        """The task that is due, or None. Its steps may be taken at any later time, and may raise
        ``OSError``.
        """
        self._now = now
        if self._under_way or now < self._next:
            return None
        self._under_way = True
        return self._free() if self._retired else self._retire()

    def free_at_once(self) -> None:
        """Free all slots that are not held and that no entry refers to; raises ``OSError``. Only
        while no worker runs, since there is no quarantine; takes a second per million entries.
        """
        for task in (self._retire(), self._free()):
            for _ in task:
                pass

    def _retire(self) -> Iterator[None]:
        self._requested = False
        try:
            unused: set[int] = set()
            for keys, _, count in self._maps.slots.dump(CHUNK):
                unused.update(INDEX.unpack_from(keys, at * INDEX.size)[0] for at in range(count))
                yield
            yield from self._keep_referenced(unused)
            left = sorted(unused)
            while left:
                held = self._held()
                for index in left[:CHUNK]:
                    if index not in held:
                        self._maps.slots.put(INDEX.pack(index), RETIRED)
                        self._retired.add(index)
                del left[:CHUNK]
                yield
        finally:
            self._under_way = False
            self._next = self._now + (QUARANTINE if self._retired else self._pause())

    def _free(self) -> Iterator[None]:
        maps, retired = self._maps, self._retired
        try:
            yield from self._keep_referenced(retired)
            yield from self._keep_restored(retired)
            for keys, values, count in maps.origins.dump(CHUNK):
                for at in range(count):
                    (index,) = INDEX.unpack_from(values, at * INDEX.size)
                    size = maps.origins.key_size
                    if index in retired and index not in self._held():
                        maps.origins.delete(keys[at * size : (at + 1) * size])
                yield
            while retired:
                held = self._held()
                for _ in range(min(CHUNK, len(retired))):
                    index = retired.pop()
                    key = INDEX.pack(index)
                    if index not in held and maps.slots.get(key) == RETIRED:
                        maps.translations.put(key, bytes(TRANSLATION.size))
                        maps.traffic.clear(index)
                        maps.slots.delete(key)
                yield
        finally:
            retired.clear()
            self._under_way = False
            self._next = self._now + self._pause()

    def _keep_restored(self, slots: set[int]) -> Iterator[None]:
        """Remove from ``slots`` those whose name another worker has restored."""
        for keys, names, count in self._maps.slots.dump(CHUNK):
            for at in range(count):
                if names[at * len(RETIRED) : (at + 1) * len(RETIRED)] != RETIRED:
                    slots.discard(INDEX.unpack_from(keys, at * INDEX.size)[0])
            yield

    def _pause(self) -> float:
        """The seconds until the next search."""
        return 0.0 if self._requested else INTERVAL

    def _keep_referenced(self, slots: set[int]) -> Iterator[None]:
        """Remove from ``slots`` those that an entry of a flow refers to."""
        slots -= self._held()
        for entries in self._maps.flows.values():
            if not slots:
                return
            size = entries.value_size
            for _, values, count in entries.dump(CHUNK):
                for at in range(count):
                    slots.discard(FlowEntry.unpack(values[at * size : (at + 1) * size]).slot)
                yield

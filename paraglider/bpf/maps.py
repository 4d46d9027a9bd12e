"""The maps of a carrier: created, or taken over from pins, and inherited by the workers.

Lives here: ``Map``, ``CounterArray``, ``CarrierMaps``, and ``SHAPES``, the shape of each map.
Rules: a map is its descriptor and sizes, so that a process without privileges can use an inherited
one. The entries of flows are inserted and deleted by their worker, never updated.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final, Self

from paraglider.bpf import syscall
from paraglider.bpf.layout import (
    COUNTERS,
    DECISION,
    DECISIONS,
    DEVICE,
    DEVICES,
    FLOW,
    FLOWS,
    INDEX,
    KEY4,
    KEY6,
    ORIGIN,
    ORIGINS,
    RING_BYTES,
    RINGS,
    ROW_SLOTS,
    SERVICE,
    SERVICES,
    SLOT,
    STEERING,
    TABLE_ROWS,
    TRAFFIC,
    TRANSLATION,
    TRANSLATIONS,
)
from paraglider.bpf.syscall import (
    ARRAY,
    ARRAY_OF_MAPS,
    HASH,
    MMAPABLE,
    NO_PREALLOC,
    PERCPU_ARRAY,
    RINGBUF,
    MapInfo,
)
from paraglider.core.flow import TCP, UDP

#: the maps of flows, by protocol and family
FLOW_MAPS: Final = {(TCP, 4): "tcp4", (UDP, 4): "udp4", (TCP, 6): "tcp6", (UDP, 6): "udp6"}


def _flows(key: Struct) -> MapInfo:
    return MapInfo(HASH, key.size, FLOW.size, FLOWS, NO_PREALLOC)


#: the shape of each map: type, sizes of key and value, entries, flags
SHAPES: Final[Mapping[str, MapInfo]] = {
    "tcp4": _flows(KEY4),
    "udp4": _flows(KEY4),
    "tcp6": _flows(KEY6),
    "udp6": _flows(KEY6),
    "translations": MapInfo(ARRAY, INDEX.size, TRANSLATION.size, TRANSLATIONS, 0),
    "devices": MapInfo(HASH, INDEX.size, DEVICE.size, DEVICES, NO_PREALLOC),
    "slots": MapInfo(HASH, INDEX.size, 8, TRANSLATIONS, NO_PREALLOC),
    "origins": MapInfo(HASH, ORIGIN.size, INDEX.size, ORIGINS, NO_PREALLOC),
    "services": MapInfo(HASH, SERVICE.size, INDEX.size, SERVICES, NO_PREALLOC),
    "decisions": MapInfo(ARRAY, INDEX.size, DECISION.size, DECISIONS, MMAPABLE),
    "tables": MapInfo(ARRAY, INDEX.size, ROW_SLOTS * SLOT.size, TABLE_ROWS, MMAPABLE),
    "steering": MapInfo(ARRAY, INDEX.size, STEERING.size, 2, 0),
    "reasons": MapInfo(PERCPU_ARRAY, INDEX.size, 8, COUNTERS, 0),
    "traffic": MapInfo(PERCPU_ARRAY, INDEX.size, TRAFFIC.size, TRANSLATIONS, 0),
    "rings": MapInfo(ARRAY_OF_MAPS, INDEX.size, 4, RINGS, 0),
}
RING_SHAPE: Final = MapInfo(RINGBUF, 0, 0, RING_BYTES, 0)

try:
    from paraglider.bpf._maps import Elements
except ImportError:
    from paraglider.bpf.elements import Elements

_POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")
_BATCH: Final = Struct("=4Q2I2Q")


class Map(Elements):
    """A map by its descriptor; ``get``, ``insert``, ``put`` and ``delete`` are those of
    ``elements.Elements``.
    """

    def dump(self, chunk: int = 1024) -> Iterator[tuple[bytes, bytes, int]]:
        """All elements, about ``chunk`` at a time: keys, values, and their number.

        An element that is added or removed meanwhile may be missing, and elements of a bucket that
        changes may come twice. A caller may pause between chunks for any time. Raises ``OSError``.
        """
        token, begun = ctypes.create_string_buffer(max(self.key_size, 8)), False
        while True:
            keys = ctypes.create_string_buffer(self.key_size * chunk)
            values = ctypes.create_string_buffer(self.value_size * chunk)
            at = ctypes.addressof(token)
            where = (at if begun else 0, at, ctypes.addressof(keys), ctypes.addressof(values))
            attributes = ctypes.create_string_buffer(_BATCH.pack(*where, chunk, self.fd, 0, 0), 56)
            result = syscall.raw(syscall.LOOKUP_BATCH, attributes, 56)
            if result == -errno.ENOSPC:  # a bucket has more elements than the chunk has room for
                chunk *= 2
                continue
            if result not in (0, -errno.ENOENT):
                raise OSError(-result, os.strerror(-result))
            begun = True
            count: int = _BATCH.unpack(attributes.raw)[4]
            if count:
                yield (
                    keys.raw[: count * self.key_size],
                    values.raw[: count * self.value_size],
                    count,
                )
            if result:
                return


class CounterArray(Map):
    """A per-CPU array of records of ``words`` counters of 64 bits."""

    def __init__(self, fd: int, words: int) -> None:
        super().__init__(fd, 4, 8 * words * _cpus())
        self._words = words
        self._format = Struct(f"={words * _cpus()}Q")

    def total(self, index: int) -> tuple[int, ...]:
        """The counters of record ``index``, each summed over the CPUs."""
        value = self.get(INDEX.pack(index))
        if value is None:
            raise IndexError(index)
        numbers = self._format.unpack(value)
        return tuple(sum(numbers[word :: self._words]) for word in range(self._words))

    def clear(self, index: int) -> None:
        """Set the counters of record ``index`` to 0."""
        self.put(INDEX.pack(index), bytes(self.value_size))


@dataclass(frozen=True, slots=True)
class CarrierMaps:
    """The maps of a carrier; ``flows`` are by protocol number and family, ``rings`` the descriptors
    of the rings by the index of the worker that reads them.
    """

    flows: Mapping[tuple[int, int], Map]
    translations: Map
    devices: Map
    slots: Map
    origins: Map
    services: Map
    decisions: Map
    tables: Map
    steering: Map
    reasons: CounterArray
    traffic: CounterArray
    outer: Map
    rings: Mapping[int, int]

    @classmethod
    def of(cls, numbers: Mapping[str, int], rings: Mapping[int, int]) -> Self:
        """The maps with the descriptors ``numbers``, by their names in ``SHAPES``."""

        def one(name: str) -> Map:
            shape = SHAPES[name]
            return Map(numbers[name], shape.key_size, shape.value_size)

        return cls(
            {key: one(name) for key, name in FLOW_MAPS.items()},
            one("translations"),
            one("devices"),
            one("slots"),
            one("origins"),
            one("services"),
            one("decisions"),
            one("tables"),
            one("steering"),
            CounterArray(numbers["reasons"], SHAPES["reasons"].value_size // 8),
            CounterArray(numbers["traffic"], SHAPES["traffic"].value_size // 8),
            one("rings"),
            rings,
        )

    @classmethod
    def create_for_test(cls, flows: int = 1024, workers: int = 2) -> Self:
        """New maps of ``flows`` entries each, for tests without a program; raises ``OSError``."""
        numbers = {
            name: create(name, flows if name in FLOW_MAPS.values() else shape.entries)
            for name, shape in SHAPES.items()
        }
        maps = cls.of(numbers, {index: create_ring() for index in range(workers)})
        maps.join_rings()
        return maps

    def flows_like(self, protocol: int, key: bytes) -> Map:
        """The map of the flows of ``protocol`` that have keys like ``key``."""
        return self.flows[protocol, 4 if len(key) == KEY4.size else 6]

    def join_rings(self) -> None:
        """Have the program send its events to ``rings``; raises ``OSError``."""
        for worker, ring in self.rings.items():
            self.outer.put(INDEX.pack(worker), INDEX.pack(ring))

    def duplicate(self, *workers: int) -> Self:
        """The same maps by duplicated descriptors, with the rings of ``workers`` only."""
        numbers = {name: os.dup(number) for name, number in self.numbers.items()}
        return self.of(numbers, {worker: os.dup(self.rings[worker]) for worker in workers})

    @property
    def numbers(self) -> dict[str, int]:
        """The descriptors of the maps, by their names in ``SHAPES``."""
        return {FLOW_MAPS[key]: one.fd for key, one in self.flows.items()} | {
            "translations": self.translations.fd,
            "devices": self.devices.fd,
            "slots": self.slots.fd,
            "origins": self.origins.fd,
            "services": self.services.fd,
            "decisions": self.decisions.fd,
            "tables": self.tables.fd,
            "steering": self.steering.fd,
            "reasons": self.reasons.fd,
            "traffic": self.traffic.fd,
            "rings": self.outer.fd,
        }

    def close(self) -> None:
        """Close the descriptors of this process; maps that are open or pinned elsewhere remain."""
        for number in (*self.numbers.values(), *self.rings.values()):
            os.close(number)


def create(name: str, entries: int) -> int:
    """A new map of the shape called ``name``, with room for ``entries``; its descriptor."""
    shape = SHAPES[name]
    sizes = (shape.kind, shape.key_size, shape.value_size, entries)
    if shape.kind != ARRAY_OF_MAPS:
        return syscall.create_map(*sizes, flags=shape.flags, name=name)
    inner = create_ring()
    try:
        return syscall.create_map(*sizes, flags=shape.flags, inner=inner, name=name)
    finally:
        os.close(inner)


def create_ring() -> int:
    """A new ring; its descriptor."""
    return syscall.create_map(RINGBUF, 0, 0, RING_SHAPE.entries, name="events")


def _cpus() -> int:
    """The number of possible CPUs: a per-CPU value has a part for each."""
    ranges = _POSSIBLE.read_text(encoding="ascii").strip().split(",")
    return int(ranges[-1].rpartition("-")[2]) + 1

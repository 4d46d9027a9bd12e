"""The maps of a carrier: their shapes, dumps while they change, and counters over CPUs."""

from __future__ import annotations

import gc
import os
import struct
from collections.abc import Iterator

import pytest

from paraglider.bpf import syscall
from paraglider.bpf.layout import RING_BYTES
from paraglider.bpf.maps import FLOW_MAPS, SHAPES, CarrierMaps, CounterArray, Map
from paraglider.bpf.ring import open_ring
from tests.bpf.programs import sends

pytestmark = pytest.mark.root


@pytest.fixture
def carrier() -> Iterator[CarrierMaps]:
    """Maps without a program."""
    maps = CarrierMaps.create_for_test(flows=4096)
    yield maps
    maps.close()


def filled(table: Map, count: int) -> set[bytes]:
    """``count`` keys, which are put into ``table``."""
    keys = {struct.pack("=IQ", number, number) for number in range(count)}
    for key in keys:
        assert table.insert(key, key * 2) == 0
    return keys


def test_the_maps_have_their_shapes(carrier: CarrierMaps) -> None:
    """Type, sizes and flags are as the kernel has them, and flows have the room that was asked
    for.
    """
    for name, number in carrier.numbers.items():
        shape, found = SHAPES[name], syscall.map_info(number)
        assert (found.kind, found.key_size, found.value_size) == (
            *(shape.kind, shape.key_size),
            shape.value_size,
        )
        assert found.flags == shape.flags
        assert found.entries == (4096 if name in FLOW_MAPS.values() else shape.entries)


@pytest.mark.parametrize("chunk", [1, 7, 5000])
def test_a_dump_has_every_element(carrier: CarrierMaps, chunk: int) -> None:
    """In chunks of any size, with its value; a chunk smaller than a bucket grows."""
    table = carrier.flows[6, 4]
    keys = filled(table, 3000)
    found: dict[bytes, bytes] = {}
    for some, values, count in table.dump(chunk):
        assert len(some) == 12 * count
        assert len(values) == 24 * count
        found |= {some[12 * i :][:12]: values[24 * i :][:24] for i in range(count)}
    assert found == {key: key * 2 for key in keys}


def test_a_dump_of_nothing(carrier: CarrierMaps) -> None:
    """An empty map has no chunk."""
    assert list(carrier.flows[17, 6].dump()) == []


def test_elements_may_go_during_a_dump(carrier: CarrierMaps) -> None:
    """What is deleted between two chunks stops no dump."""
    table = carrier.flows[6, 4]
    filled(table, 2000)
    for keys, _, count in table.dump(64):
        for i in range(count):
            table.delete(keys[12 * i :][:12])
    assert list(table.dump()) == []


def test_counters_are_summed_over_the_cpus(carrier: CarrierMaps) -> None:
    """Every word of a record by itself."""
    cpus = carrier.traffic.value_size // 32
    record = b"".join(struct.pack("=4Q", cpu, 10 * cpu, 1, 2**40) for cpu in range(cpus))
    carrier.traffic.put(struct.pack("=I", 7), record)
    total = sum(range(cpus))
    assert carrier.traffic.total(7) == (total, 10 * total, cpus, cpus * 2**40)
    assert carrier.traffic.total(8) == (0, 0, 0, 0)
    assert carrier.reasons.total(0) == (0,)
    with pytest.raises(IndexError):
        carrier.traffic.total(1 << 14)
    carrier.traffic.clear(7)
    assert carrier.traffic.total(7) == (0, 0, 0, 0)


def test_each_worker_has_a_ring(carrier: CarrierMaps) -> None:
    """What a program sends to the ring of worker 1 is read there and nowhere else."""
    program = sends(carrier.rings[1], 42)
    syscall.run_program(program, bytes(60))
    os.close(program)
    rings = [open_ring(number, RING_BYTES) for number in carrier.rings.values()]
    assert [ring.read(10) for ring in rings] == [[], [struct.pack("=Q", 42)]]
    for ring in rings:
        ring.close()


def test_a_closed_carrier_leaves_no_descriptor() -> None:
    """As many as before; a map of counters is found by its own class."""
    gc.collect()  # or what an earlier test has left would be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    maps = CarrierMaps.create_for_test(flows=16, workers=3)
    assert isinstance(maps.reasons, CounterArray)
    assert len(os.listdir("/proc/self/fd")) == before + len(SHAPES) + 3  # noqa: PTH208
    maps.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_duplicate_has_the_same_maps(carrier: CarrierMaps) -> None:
    """A worker's own descriptors, with its ring alone, work when the others are closed."""
    mine = carrier.duplicate(1)
    assert list(mine.rings) == [1]
    carrier.flows[17, 4].insert(b"k" * 12, b"v" * 24)
    assert mine.flows[17, 4].get(b"k" * 12) == b"v" * 24
    mine.close()
    assert carrier.flows[17, 4].delete(b"k" * 12)

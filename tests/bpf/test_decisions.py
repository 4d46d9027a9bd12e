"""Tables of decisions: written beside the present one, found again by the next process."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraglider.bpf import decisions as decisions_module
from paraglider.bpf.decisions import Decisions, open_decisions
from paraglider.bpf.elements import publish
from paraglider.bpf.layout import (
    BY_FLOW,
    BY_TURN,
    DECISION,
    DECISIONS,
    DIRECT,
    INDEX,
    ROW_SLOTS,
    SERVICE,
    SLOT,
    STEERING,
)
from paraglider.bpf.maps import CarrierMaps, Map
from tests.bpf.carrying import remove_all

pytestmark = pytest.mark.root

NAME, OTHER = b"the name", b"another1"
ROWS = 8
ROOM = ROWS * ROW_SLOTS
END = SERVICE.pack(bytes([192, 0, 2, 1]), (80).to_bytes(2, "big"), 6, 4)
SECOND = SERVICE.pack(bytes([192, 0, 2, 1]), bytes(2), 17, 4)


class CountedMap(Map):
    """A map that counts what is written."""

    written = 0

    def put(self, key: bytes, value: bytes) -> None:
        """See ``Map``."""
        self.written += 1
        super().put(key, value)


class World:
    """Memory in which decisions are, and the kernel's maps that lead to them."""

    def __init__(self, maps: CarrierMaps) -> None:
        self.maps = maps
        self.services = CountedMap(maps.services.fd, SERVICE.size, INDEX.size)
        self.records = bytearray(DECISIONS * DECISION.size)
        self.tables = bytearray(ROOM * SLOT.size)

    def opened(self) -> Decisions:
        """The decisions, for another process."""
        return Decisions(self.services, self.maps.steering, self.records, self.tables)

    def record(self, index: int) -> tuple[object, ...]:
        """What the program reads."""
        return DECISION.unpack_from(self.records, index * DECISION.size)


@pytest.fixture(scope="module")
def maps() -> Iterator[CarrierMaps]:
    """Maps of the kernel."""
    made = CarrierMaps.create_for_test(64, 1)
    yield made
    made.close()


@pytest.fixture
def world(maps: CarrierMaps) -> World:
    """Memory without decisions, to which no service leads."""
    remove_all(maps.services)
    return World(maps)


def claimed(decisions: Decisions, name: bytes = NAME) -> int:
    """The index of a service."""
    index = decisions.claim(name)
    assert index
    return index


def test_what_the_program_reads(world: World) -> None:
    """Every field stands where the layout has it, the table in the slots that the word names."""
    decisions = world.opened()
    index = claimed(decisions)
    decisions.configure(index, BY_FLOW, (2**64 - 1, 5), bound=9, flags=DIRECT)
    assert decisions.write(index, array("H", [3, 0, 65535]))
    table, *rest = world.record(index)
    assert rest == [2**64 - 1, 5, 0, 9, 0, 0, 0, BY_FLOW, DIRECT, NAME]
    assert isinstance(table, int)
    first, size = table >> 32, table & 0xFFFFFFFF
    assert array("H", world.tables[2 * first : 2 * (first + size)]) == array("H", [3, 0, 65535])
    assert decisions.read(index) == array("H", [3, 0, 65535])


def test_a_table_is_complete_before_its_word(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word is stored last, with release semantics: on a CPU that reorders stores too, who reads
    it reads the slots.
    """
    decisions = world.opened()
    index = claimed(decisions)
    decisions.write(index, array("H", [1] * 9))
    published = []

    def observe(words: memoryview, at: int, value: int) -> None:
        first, size = value >> 32, value & 0xFFFFFFFF
        assert set(decisions.read(index)) == {1}
        published.append(array("H", world.tables[2 * first : 2 * (first + size)]))
        publish(words, at, value)

    monkeypatch.setattr(decisions_module, "publish", observe)
    decisions.write(index, array("H", [2] * 7))
    assert published == [array("H", [2] * 7)]
    assert decisions.read(index) == published[0]


def test_a_table_is_written_beside_the_present_one(world: World) -> None:
    """The slots of the present table do not change, nor do those of other services."""
    decisions = world.opened()
    one, other = claimed(decisions), claimed(decisions, OTHER)
    assert one != other
    decisions.write(other, array("H", [9] * 50))
    decisions.write(one, array("H", [1] * 50))
    for turn in range(2, 20):
        before = world.record(one)[0]
        assert isinstance(before, int)
        at = 2 * (before >> 32)
        assert decisions.write(one, array("H", [turn] * (40 + turn % 3)))
        kept = array("H", world.tables[at : at + 2 * (before & 0xFFFFFFFF)])
        assert set(kept) == {turn - 1}
        assert set(decisions.read(other)) == {9}
    assert set(decisions.read(one)) == {19}


def test_the_same_table_is_not_written_again(world: World) -> None:
    """A turn's table that did not change costs no swap."""
    decisions = world.opened()
    index = claimed(decisions)
    decisions.write(index, array("H", [1, 2]))
    before = world.record(index)
    assert decisions.write(index, array("H", [1, 2]))
    assert world.record(index) == before


def test_no_table_means_that_a_worker_decides(world: World) -> None:
    """An empty table, none for lack of room, or one cleared: the word is 0."""
    decisions = world.opened()
    index = claimed(decisions)
    for slots in (array("H"), array("H", bytes(2 * (ROOM + 1)))):
        assert decisions.write(index, array("H", [7]))
        assert not decisions.write(index, slots)
        assert world.record(index)[0] == 0
        assert len(decisions.read(index)) == 0
    assert decisions.write(index, array("H", [7]))
    decisions.clear(index)
    assert world.record(index)[0] == 0


SIZES = st.integers(0, ROOM // 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), SIZES, st.booleans()), max_size=40))
def test_tables_never_overlap(changes: list[tuple[int, int, bool]]) -> None:
    """Whatever is written, cleared or released: each service has the table that it was given last,
    and the one before it stays as it was until the next change.
    """
    maps = FakeMaps()
    decisions = Decisions(maps, maps, maps.records, maps.tables)
    last: dict[int, array[int]] = {}
    for turn, (name, size, gone) in enumerate(changes, 1):
        index = decisions.claim(bytes([name + 1]) * 8)
        assert index is not None
        if gone:
            decisions.release(index)
            last.pop(index, None)
            continue
        word = maps.word(index)
        before = maps.slots(word)
        wanted = array("H", [turn]) * size
        if decisions.write(index, wanted):
            last[index] = wanted
            assert maps.slots(word) == before
        else:
            last.pop(index, None)
            assert maps.word(index) == 0
        for other, table in last.items():
            assert decisions.read(other) == table


class FakeMaps(Map):
    """A map without elements, and the memory of decisions."""

    def __init__(self) -> None:
        self.records = bytearray(DECISIONS * DECISION.size)
        self.tables = bytearray(ROOM * SLOT.size)

    def dump(self, chunk: int = 1024) -> Iterator[tuple[bytes, bytes, int]]:
        """See ``Map``."""
        return iter(())

    def word(self, index: int) -> int:
        """The word that names the table."""
        (found,) = struct.unpack_from("=Q", self.records, index * DECISION.size)
        return int(found)

    def slots(self, word: int) -> array[int]:
        """What is where the word says."""
        first, size = word >> 32, word & 0xFFFFFFFF
        return array("H", self.tables[2 * first : 2 * (first + size)])


def test_room_is_used_again(world: World) -> None:
    """Tables that fit twice can change for ever; a released one leaves its room."""
    decisions = world.opened()
    index = claimed(decisions)
    half = array("H", [0]) * (ROOM // 2)
    for turn in range(1, 10):
        half[0] = turn
        assert decisions.write(index, half)
    other = claimed(decisions, OTHER)
    assert decisions.largest_region() == ROOM % 2
    assert not decisions.write(other, half)
    decisions.release(index)
    assert decisions.largest_region() == ROOM
    assert decisions.write(other, half)
    assert decisions.names() == (OTHER,)


def test_another_kind_or_key_clears_the_table(world: World) -> None:
    """A table is never used with a hash that it was not made for; another bound leaves it."""
    decisions = world.opened()
    index = claimed(decisions)
    for kind, key, flags in ((BY_TURN, (0, 0), 0), (BY_FLOW, (1, 2), 0), (BY_FLOW, (1, 2), DIRECT)):
        decisions.configure(index, kind, key, 5, flags)
        assert world.record(index)[0] == 0
        decisions.write(index, array("H", [1]))
        decisions.configure(index, kind, key, 6, flags)
        assert world.record(index)[0] != 0


def test_a_cleared_table_is_not_overwritten_at_once(world: World) -> None:
    """The program may be reading it: the next one is written beside it, if there is room."""
    decisions = world.opened()
    index = claimed(decisions)
    before = array("H", range(1, 11))
    assert decisions.write(index, before)
    present = world.record(index)[0]
    assert isinstance(present, int)
    first = present >> 32
    decisions.configure(index, BY_TURN, (5, 6))
    assert decisions.write(index, array("H", range(21, 31)))
    held = memoryview(world.tables).cast("H")[first : first + len(before)]
    assert list(held) == list(before)
    decisions.clear(index)
    assert not decisions.write(index, array("H", range(1, ROOM + 1)))
    assert decisions.write(index, array("H", range(1, ROOM + 1)))


def test_the_next_process_goes_on(world: World) -> None:
    """It finds the indices, tables and services, and overwrites no table in use."""
    first = world.opened()
    index = claimed(first)
    first.write(index, array("H", [4] * 10))
    first.set_services({END: index})
    first.close()
    second = world.opened()
    assert second.claim(NAME) == index
    other = claimed(second, OTHER)
    second.write(other, array("H", [5] * 10))
    assert second.read(index) == array("H", [4] * 10)
    second.set_services({SECOND: other})
    assert list(world.services.dump()) == [(SECOND, INDEX.pack(other), 1)]


def test_services_are_written_once(world: World) -> None:
    """What has not changed is not written."""
    decisions = world.opened()
    index = claimed(decisions)
    decisions.set_services({END: index, SECOND: index})
    assert world.services.written == 2
    decisions.set_services({END: index, SECOND: index})
    assert world.services.written == 2
    decisions.set_services({})
    assert list(world.services.dump()) == []


def test_all_indices_may_be_in_use(world: World) -> None:
    """Then a worker decides for the next service; index 0 is none's."""
    decisions = world.opened()
    found = {decisions.claim(number.to_bytes(8, "big")) for number in range(1, DECISIONS)}
    assert found == set(range(1, DECISIONS))
    assert decisions.claim(NAME) is None


def test_what_the_program_notes(world: World) -> None:
    """The turn and the openings of the tick."""
    decisions = world.opened()
    index = claimed(decisions)
    values = (0, 0, 0, 70, 5, 11, 3, 10, BY_TURN, 0, NAME)
    DECISION.pack_into(world.records, index * DECISION.size, *values)
    assert decisions.status(index) == (70, 11, 3, 10)


def test_steering_has_a_place_for_each_family(world: World) -> None:
    """IPv4 first."""
    decisions = world.opened()
    decisions.set_steering(6, 0xFFFFFFFF, 4)
    decisions.set_steering(4, 7, 2)
    steering = world.maps.steering
    assert [steering.get(INDEX.pack(i)) for i in (0, 1)] == [
        STEERING.pack(7, 2, 0),
        STEERING.pack(0xFFFFFFFF, 4, 0),
    ]


def test_the_kernel_has_what_is_written(maps: CarrierMaps) -> None:
    """Memory and map are the same; another process reads it too."""
    decisions = open_decisions(maps)
    index = claimed(decisions)
    decisions.configure(index, BY_TURN)
    slots = array("H", range(1, 40))
    assert decisions.write(index, slots)
    value = maps.decisions.get(INDEX.pack(index))
    assert value is not None
    table, *_, name = DECISION.unpack(value)
    assert (table & 0xFFFFFFFF, name) == (39, NAME)
    rows = [maps.tables.get(INDEX.pack((table >> 32) // ROW_SLOTS + row)) for row in range(2)]
    assert b"".join(row or b"" for row in rows)[: 2 * 39] == slots.tobytes()
    decisions.close()
    again = open_decisions(maps)
    assert again.read(index) == slots
    again.close()

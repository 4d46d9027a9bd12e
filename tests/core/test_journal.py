"""The journal: records in place, valid only when whole, bounded, and read without trust."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.core.journal import (
    HEADER,
    PORTION,
    RECORD,
    VERSION,
    Journal,
    fault_of,
    renew,
    size_of,
    write_header,
)

BOOT = bytes(range(16))
V4_KEY = bytes(range(100, 112))
V6_KEY = bytes(range(100, 136))


def memory(records: int) -> bytearray:
    """An empty journal's bytes."""
    buffer = bytearray(size_of(records))
    write_header(buffer, records, BOOT)
    return buffer


def content(journal: Journal) -> dict[int, tuple[int, bytes, bytes]]:
    """State, identity and key of every record."""
    return {number: (state, name, key) for number, state, name, key in journal.read()}


def name(number: int) -> bytes:
    """The identity of a translation."""
    return number.to_bytes(8, "big")


def test_what_is_written_is_read_by_the_next() -> None:
    """Both families, all states and changes are read from the bytes alone."""
    buffer = memory(3)
    journal = Journal(buffer)
    assert [journal.write(name(1), V4_KEY, 0), journal.write(name(2), V6_KEY, 4)] == [1, 2]
    journal.move(1, 2)
    journal.tick(12.5)
    journal.complete = True
    after = Journal(bytearray(buffer))
    assert after.complete
    assert after.alive == 12.5
    assert content(after) == {1: (2, name(1), V4_KEY + bytes(24)), 2: (4, name(2), V6_KEY)}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=60))
def test_records_against_a_dictionary(steps: list[tuple[int, int]]) -> None:
    """After any writes, moves and erasures the bytes equal a dictionary at every step, also for a
    process that starts then, and no record above the peak number of flows is used.
    """
    buffer = memory(6)
    journal = Journal(buffer)
    known: dict[int, tuple[int, bytes, bytes]] = {}
    most = 0
    for slot, state in steps:
        if slot < len(known):
            number = sorted(known)[slot]
            if state == 6:
                journal.erase(number)
                del known[number]
            else:
                journal.move(number, state)
                known[number] = (state, *known[number][1:])
        elif len(known) < 6:
            number = journal.write(name(slot), V6_KEY, state)
            assert number
            assert number not in known
            known[number] = (state, name(slot), V6_KEY)
        most = max(most, len(known))
        after = Journal(bytearray(buffer))
        assert content(after) == known
        assert max(known, default=0) <= most
        after.reclaim()
        free = [after.write(name(9), V6_KEY, 1) for _ in range(6 - len(known))]
        assert sorted([*free, *known]) == [1, 2, 3, 4, 5, 6]
        assert after.write(name(9), V6_KEY, 1) == 0


def test_a_record_that_was_being_written_does_not_count() -> None:
    """Its first byte and the highest record come last: without either there is no flow."""
    buffer = memory(2)
    journal = Journal(buffer)
    journal.write(name(1), V4_KEY, 2)
    whole = bytearray(buffer)
    whole[HEADER] = 0
    assert content(Journal(whole)) == {}
    whole = bytearray(buffer)
    struct.pack_into("=I", whole, 20, 0)
    assert content(Journal(whole)) == {}


def test_memory_is_asked_for_in_portions() -> None:
    """Memory is reserved before a record is written, and not reserved again."""
    asked: list[tuple[int, int]] = []
    buffer = memory(PORTION + 5)
    journal = Journal(buffer, lambda begin, end: not asked.append((begin, end)))
    for _ in range(PORTION + 5):
        assert journal.write(name(1), V4_KEY, 0)
    assert asked == [(HEADER, size_of(PORTION)), (size_of(PORTION), size_of(PORTION + 5))]
    again = Journal(buffer, lambda *_: pytest.fail("asked for what is there"))
    assert again.write(name(1), V4_KEY, 0) == 0  # all records are in use


def test_without_memory_flows_are_carried_unwritten() -> None:
    """They are counted; memory is requested once, and again after the next tick."""
    answers = [False, False, True]
    journal = Journal(memory(10), lambda *_: answers.pop(0))
    assert [journal.write(name(1), V4_KEY, 0) for _ in range(3)] == [0, 0, 0]
    assert len(answers) == 2
    journal.tick(1.0)
    assert journal.write(name(1), V4_KEY, 0) == 0
    journal.tick(2.0)
    assert journal.write(name(1), V4_KEY, 0) == 1
    assert journal.unwritten == 4


def test_cleared() -> None:
    """No flow is left, and the old bytes are never read as a flow."""
    buffer = memory(3)
    journal = Journal(buffer)
    for _ in range(3):
        journal.write(name(1), V4_KEY, 2)
    journal.clear()
    journal.reclaim()
    assert content(journal) == {}
    assert journal.write(name(2), V6_KEY, 1) == 1
    assert content(Journal(bytearray(buffer))) == {1: (1, name(2), V6_KEY)}


@pytest.mark.parametrize(
    ("at", "value", "fault"),
    [
        (0, b"x", "it is no journal"),
        (8, b"\x09", "it is of another version (9, 48 bytes a flow)"),
        (12, b"\x31", "it is of another version (2, 49 bytes a flow)"),
        (24, b"\xff", "it is of an earlier boot"),
        (16, b"\xff", "it is cut"),
        (20, b"\x09", "it is damaged"),
    ],
    ids=["magic", "version", "record", "boot", "records", "highest"],
)
def test_faults(at: int, value: bytes, fault: str) -> None:
    """Each invalid field of the header has its own message."""
    buffer = memory(4)
    assert fault_of(buffer, BOOT) is None
    buffer[at : at + len(value)] = value
    assert fault_of(buffer, BOOT) == fault


def test_the_version_before_can_be_read() -> None:
    """Its flows are there, and it is of this version from then on."""
    buffer = memory(4)
    Journal(buffer).write(name(1), V4_KEY, 3)
    buffer[8] = 1
    assert fault_of(buffer, BOOT) is None
    renew(buffer)
    assert buffer[8] == VERSION
    assert [each[:3] for each in Journal(buffer).read()] == [(1, 3, name(1))]


def test_cut_files() -> None:
    """A journal that lost bytes at its end, up to all of them, is never read."""
    buffer = memory(2)
    assert {fault_of(buffer[:size], BOOT) for size in range(len(buffer))} == {"it is cut"}


def test_more_records() -> None:
    """A journal that has grown keeps its flows."""
    buffer = memory(1)
    Journal(buffer).write(name(1), V4_KEY, 2)
    grown = buffer + bytearray(2 * RECORD)
    write_header(grown, 3, BOOT)
    journal = Journal(grown)
    journal.reclaim()
    assert [journal.write(name(2), V4_KEY, 1) for _ in range(3)] == [2, 3, 0]
    assert sorted(content(journal)) == [1, 2, 3]

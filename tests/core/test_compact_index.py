"""Records of compact flows are found by the client's end of either key, and by nothing else."""

from __future__ import annotations

from random import Random

import pytest
from journals import World, key, memory
from packets import V4, V6

from paraglider.core.compact_index import CompactIndex, words
from paraglider.core.journal import HEADER, RECORD, Journal

FLOWS = 300


def filled() -> tuple[bytearray, CompactIndex, dict[int, tuple[bytes, bytes]]]:
    """A journal of flows of both families, their index, and the keys of each by its record."""
    buffer, world = memory(FLOWS), World()
    journal = Journal(buffer)
    index, keys = CompactIndex(journal), {}
    for number in range(FLOWS):
        family = (V4, V6)[number % 2]
        translation = world.translation(family, number % 3)
        forward = key(family, number)
        record = journal.write(translation.identity, forward, 2)
        index.add(record, forward, 1 + number % 3)
        keys[record] = forward, translation.reverse_key(forward)
    return buffer, index, keys


def test_records_are_found_by_either_key() -> None:
    """Until they are removed, in any order; each has its translation's number."""
    _, index, keys = filled()
    assert index.count == FLOWS
    for record, (forward, back) in keys.items():
        assert index.find(forward, False) == index.find(back, True) == record
        assert index.number(record) == 1 + (record - 1) % 3
    order = list(keys)
    Random(1).shuffle(order)
    for left, record in zip(range(FLOWS - 1, -1, -1), order, strict=True):
        forward, back = keys[record]
        index.remove(record, forward)
        assert index.find(forward, False) == index.find(back, True) == index.number(record) == 0
        assert index.count == left
        rest = [other for other in order[len(order) - left :][:3] if other != record]
        assert all(index.find(keys[other][0], False) == other for other in rest)


def test_other_clients_are_not_found() -> None:
    """Whether their address or their port differs."""
    _, index, _ = filled()
    ours = key(V4, 4)
    assert index.find(ours, False)
    assert not index.find(b"\x01" + ours[1:], False)
    assert not index.find(ours[:-4] + b"\x01\x01" + ours[-2:], False)
    assert not index.find(ours, True)


def test_all_are_listed_in_order() -> None:
    """Without those that were removed."""
    _, index, keys = filled()
    for record in list(keys)[::2]:
        index.remove(record, keys.pop(record)[0])
    found, record = [], index.next(0)
    while record:
        found.append(record)
        record = index.next(record)
    assert found == sorted(keys)


@pytest.mark.parametrize("damage", [b"\0", b"\xff"])
def test_a_damaged_record_is_removed_too(damage: bytes) -> None:
    """Its key leads to another group; no other record is lost with it, and it is not found when the
    record is another flow's. It may be added again when all were removed.
    """
    # The hash is a random one, by which the key may lead to the same group, once in many times.
    assert not all(is_added_at_once_after(damage) for _ in range(8))


def is_added_at_once_after(damage: bytes) -> bool:
    """Whether a record that was damaged and removed may be added while others are in the index."""
    buffer, index, keys = filled()
    victim = 7
    at = HEADER + (victim - 1) * RECORD
    buffer[at : at + RECORD] = damage * RECORD
    index.remove(victim, damage * 12)
    assert (index.count, index.number(victim)) == (FLOWS - 1, 0)
    lost, _ = keys.pop(victim)
    assert all(index.find(forward, False) == record for record, (forward, _) in keys.items())
    buffer[at + 12 : at + 12 + len(lost)] = lost
    assert not index.find(lost, False)
    at_once = index.may_add(victim)
    listed = 0
    while record := index.next(0):
        listed += 1
        index.remove(record, keys[record][0])
    assert (listed, index.count) == (FLOWS - 1, 0)
    assert index.may_add(victim)
    index.add(victim, lost, 1)
    assert index.find(lost, False) == victim
    return at_once


def test_words_are_zero() -> None:
    """And as long as their form says."""
    found = words(5, "H")
    assert (list(found), found.nbytes) == ([0] * 5, 10)

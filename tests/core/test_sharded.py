"""Tests of ``paraglider.core.sharded``: a dictionary in parts."""

from __future__ import annotations

import pytest

from paraglider.core.sharded import SHARDS, Sharded

#: keys, many to a part
KEYS = [number.to_bytes(4, "big") for number in range(100 * SHARDS)]


def test_it_is_a_dictionary() -> None:
    """Values are found, counted, replaced and removed by their keys."""
    sharded: Sharded[int] = Sharded()
    for number, key in enumerate(KEYS):
        assert sharded.get(key) is None
        sharded[key] = number
    assert (len(sharded), [sharded[key] for key in KEYS]) == (len(KEYS), list(range(len(KEYS))))
    for key in KEYS[::2]:
        del sharded[key]
    sharded[KEYS[1]] = -1
    assert len(sharded) == len(KEYS) // 2
    assert [sharded.get(key) for key in KEYS[:4]] == [None, -1, None, 3]


def test_no_part_has_much_of_it() -> None:
    """A dictionary that grows copies itself: each of them has a small share."""
    sharded: Sharded[int] = Sharded()
    for key in KEYS:
        sharded[key] = 0
    assert max(map(len, sharded._shards.values())) < len(KEYS) // 32


def test_a_key_that_is_not_there() -> None:
    """Neither found nor removed."""
    sharded: Sharded[int] = Sharded()
    for call in (sharded.__delitem__, sharded.__getitem__):
        with pytest.raises(KeyError):
            call(bytes(4))
    assert (len(sharded), sharded.get(bytes(4))) == (0, None)

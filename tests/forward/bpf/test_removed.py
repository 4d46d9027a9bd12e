"""Tests of ``paraglider.forward.bpf.removed``: is_doubtful last until the ring was read twice."""

from __future__ import annotations

import pytest

from paraglider.forward.bpf.removed import READINGS, RemovedKeys

KEYS = [bytes([n]) for n in range(5)]


def read(times: int, most: int = 100) -> RemovedKeys:
    """Keys after some readings."""
    removed = RemovedKeys(most)
    for _ in range(times):
        removed.ring_was_read()
    return removed


@pytest.mark.parametrize("times", range(READINGS + 1))
def test_every_key_is_doubtful_at_the_start(times: int) -> None:
    """Until the ring was read twice."""
    assert read(times).is_doubtful(b"x") is (times < READINGS)


def test_a_noted_key_is_doubtful_for_two_readings() -> None:
    """Also if it was noted just before one; others are not."""
    removed = read(READINGS)
    removed.add(b"x")
    assert (removed.is_doubtful(b"x"), removed.is_doubtful(b"y")) == (True, False)
    removed.ring_was_read()
    assert removed.is_doubtful(b"x")
    removed.ring_was_read()
    assert not removed.is_doubtful(b"x")


def test_too_many_keys_are_all_keys() -> None:
    """What is noted is bounded; those that were not are doubtful like all others, long enough."""
    removed = read(READINGS, most=3)
    for key in KEYS:
        removed.add(key)
    for _ in range(READINGS + 1):
        assert all(map(removed.is_doubtful, [*KEYS, b"x"]))
        removed.ring_was_read()
    assert not any(map(removed.is_doubtful, [*KEYS, b"x"]))

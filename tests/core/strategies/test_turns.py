"""``interleaved``: shares by weight, and nobody waits longer than its weight says."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.strategies.turns import interleaved


@MANY
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 3))
def test_whole_cycles_have_exact_shares(weights: list[int], cycles: int) -> None:
    """Each index is there as often as its weight says."""
    counted = Counter(interleaved(weights, cycles * sum(weights)))
    assert counted == {n: cycles * weight for n, weight in enumerate(weights)}


@MANY
@given(st.lists(st.integers(1, 65535), min_size=1, max_size=8), st.integers(1, 2000))
def test_other_lengths_are_rounded(weights: list[int], size: int) -> None:
    """By less than a turn for each of the others."""
    turns = interleaved(weights, size)
    assert len(turns) == size
    counted, total = Counter(turns), sum(weights)
    for n, weight in enumerate(weights):
        assert abs(counted[n] - size * weight / total) <= 1 + len(weights) / 2


def test_equal_weights_alternate() -> None:
    """In the order of the backends."""
    assert interleaved([3, 3, 3], 7) == [0, 1, 2, 0, 1, 2, 0]

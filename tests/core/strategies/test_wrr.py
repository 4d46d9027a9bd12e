"""``wrr``: exact shares, evenly interleaved, against the textbook algorithm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.flow import TCP
from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow
from paraglider.core.strategies.wrr import CYCLE, SmoothRoundRobin

FLOW = NewFlow(TCP, bytes(12), 0.0)
weights_lists = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def of(weights: list[int]) -> tuple[Backend, ...]:
    """Backends a, b, c … with these weights."""
    return tuple(Backend(chr(97 + i), bytes([i]), weight=w) for i, w in enumerate(weights))


def picks(strategy: SmoothRoundRobin, count: int) -> str:
    """The names of the next ``count`` picks."""
    return "".join(strategy.pick(FLOW).name for _ in range(count))


def textbook(weights: list[int], count: int) -> str:
    """nginx's description, word for word, with a dictionary of current weights."""
    current = {chr(97 + i): 0 for i in range(len(weights))}
    effective = dict(zip(current, weights, strict=True))
    result = ""
    for _ in range(count):
        for name in current:
            current[name] += effective[name]
        best = max(current, key=lambda name: current[name])  # the first of equals, as in nginx
        current[best] -= sum(effective.values())
        result += best
    return result


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([5, 1, 1], "aabacaa"),  # the example of nginx's commit message
        ([1, 1, 1], "abc"),
        ([3, 2], "ababa"),
        ([4], "aaaa"),
    ],
)
def test_known_cycles(weights: list[int], expected: str) -> None:
    """Cycles known by heart."""
    strategy = SmoothRoundRobin()
    strategy.prepare(of(weights))
    assert picks(strategy, len(expected)) == expected


@MANY
@given(weights_lists, st.integers(0, 100))
def test_picks_are_those_of_the_textbook(weights: list[int], worker: int) -> None:
    """The picks equal the textbook's, worker n beginning n flows further on."""
    strategy = SmoothRoundRobin(worker)
    strategy.prepare(of(weights))
    skipped = worker % sum(weights)
    assert picks(strategy, 50) == textbook(weights, skipped + 50)[skipped:]


@MANY
@given(weights_lists, st.integers(0, 60))
def test_shares_are_exact_in_every_cycle(weights: list[int], offset: int) -> None:
    """Over any number of picks equal to the sum of weights, each backend has exactly its weight."""
    strategy = SmoothRoundRobin()
    strategy.prepare(of(weights))
    picks(strategy, offset)
    cycle = picks(strategy, sum(weights))
    assert [cycle.count(chr(97 + i)) for i in range(len(weights))] == weights


@MANY
@given(weights_lists)
def test_shares_are_smooth(weights: list[int]) -> None:
    """A backend is never a whole round of flows away from its share."""
    strategy = SmoothRoundRobin()
    strategy.prepare(of(weights))
    total = sum(weights)
    run = picks(strategy, 2 * total)
    for upto in range(1, len(run) + 1):
        for index, weight in enumerate(weights):
            given_so_far = run[:upto].count(chr(97 + index))
            assert abs(given_so_far - upto * weight / total) < len(weights)


def test_credit_survives_a_change() -> None:
    """A backend that returns does not restart the cycle of the others."""
    a, b, c = of([1, 1, 1])
    strategy = SmoothRoundRobin()
    strategy.prepare((a, b, c))
    assert picks(strategy, 1) == "a"
    strategy.prepare((a, b))
    assert picks(strategy, 1) == "b"


def test_a_heavy_backend_that_leaves_leaves_no_burst() -> None:
    """Credit of the others is not paid to one of them in a row."""
    heavy, b, c = of([1000, 1, 1])
    strategy = SmoothRoundRobin()
    strategy.prepare((heavy, b, c))
    assert "b" in picks(strategy, 400)
    strategy.prepare((b, c))
    run = picks(strategy, 20)
    assert abs(run.count("b") - run.count("c")) <= 4


def test_weights_that_shrink_leave_no_burst() -> None:
    """After 1000:1000 becomes 1:1, both take turns within a few flows."""
    a, b = of([1000, 1000])
    strategy = SmoothRoundRobin()
    strategy.prepare((a, b))
    picks(strategy, 1)
    a.weight = b.weight = 1
    strategy.prepare((a, b))
    run = picks(strategy, 20)
    assert abs(run.count("a") - run.count("b")) <= 4


@MANY
@given(weights_lists, weights_lists, st.integers(0, 200))
def test_shares_are_exact_again_after_any_change(
    before: list[int], after: list[int], count: int
) -> None:
    """Two cycles after weights changed, a cycle has exactly the new shares."""
    size = min(len(before), len(after))
    backends = of(before[:size])
    strategy = SmoothRoundRobin()
    strategy.prepare(backends)
    picks(strategy, count)
    for backend, weight in zip(backends, after, strict=False):
        backend.weight = weight
    strategy.prepare(backends)
    total = sum(backend.weight for backend in backends)
    picks(strategy, size * 2 * total)
    cycle = picks(strategy, total)
    assert [cycle.count(backend.name) for backend in backends] == after[:size]


def table(weights: list[int]) -> list[int]:
    """How many entries of the kernel's table each backend has."""
    backends = of(weights)
    strategy = SmoothRoundRobin()
    strategy.prepare(backends)
    found = strategy.kernel_table(lambda _: 0, 0)
    assert found.backends == backends
    return [list(found.entries).count(index) for index in range(len(weights))]


def test_the_kernels_table_has_one_cycle() -> None:
    """Of the weights without their common divisor; none without backends."""
    assert table([5, 1, 1]) == [5, 1, 1]
    assert table([50, 10, 10]) == [5, 1, 1]
    assert table([]) == []


def test_a_long_cycle_is_rounded() -> None:
    """So that the table stays small."""
    counted = table([65535, 32768, 1021])
    assert sum(counted) == CYCLE
    assert counted == pytest.approx([CYCLE * w / 99324 for w in (65535, 32768, 1021)], abs=1)

"""``rr``: exact turns, also when backends come and go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.flow import TCP
from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow
from paraglider.core.strategies.rr import RoundRobin

FLOW = NewFlow(TCP, bytes(12), 0.0)
BACKENDS = {name: Backend(name, name.encode()) for name in "abcde"}


def of(names: str) -> tuple[Backend, ...]:
    """The backends with these names."""
    return tuple(BACKENDS[name] for name in names)


def picks(strategy: RoundRobin, count: int) -> str:
    """The names of the next ``count`` picks."""
    return "".join(strategy.pick(FLOW).name for _ in range(count))


def test_turns_are_exact() -> None:
    """One flow each, in the order of the configuration."""
    strategy = RoundRobin()
    strategy.prepare(of("abc"))
    assert picks(strategy, 8) == "abcabcab"


def test_weights_are_left_aside() -> None:
    """A backend of weight 9 gets as many flows as one of weight 1."""
    strategy = RoundRobin()
    strategy.prepare((Backend("a", b"a", weight=9), Backend("b", b"b")))
    assert picks(strategy, 6) == "ababab"


@pytest.mark.parametrize(
    ("worker", "expected"), [(0, "abc"), (1, "bca"), (2, "cab"), (3, "abc"), (7, "bca")]
)
def test_workers_start_apart(worker: int, expected: str) -> None:
    """Worker 1 begins with the second backend, and so on round."""
    strategy = RoundRobin(worker)
    strategy.prepare(of("abc"))
    assert picks(strategy, 3) == expected


@pytest.mark.parametrize(
    ("before", "count", "after", "expected"),
    [
        ("abcd", 1, "bcd", "bcdb"),  # the one that has just been picked leaves
        ("abcd", 1, "acd", "cdac"),  # the one whose turn it is leaves
        ("abcd", 1, "ab", "baba"),  # others leave
        ("abcd", 4, "bcd", "bcdb"),  # at the end of a round
        ("abcd", 3, "abc", "abca"),  # the last one leaves on its turn
        ("bcd", 1, "abcd", "cdab"),  # one comes back ahead of the one whose turn it is
        ("abd", 2, "abcd", "dabc"),  # one comes back where it had been passed
        ("ab", 1, "cd", "dcdc"),  # all are replaced
    ],
)
def test_a_change_leaves_the_turn_in_place(
    before: str, count: int, after: str, expected: str
) -> None:
    """The next backend stays the next one; if it left, the first after it that is still there."""
    strategy = RoundRobin()
    strategy.prepare(of(before))
    picks(strategy, count)
    strategy.prepare(of(after))
    assert picks(strategy, 4) == expected


def test_all_gone_and_back() -> None:
    """A pool that was empty for a while starts with any backend, and continues in turn."""
    strategy = RoundRobin()
    strategy.prepare(of("ab"))
    picks(strategy, 1)
    strategy.prepare(())
    strategy.prepare(of("ab"))
    assert picks(strategy, 2) in ("ab", "ba")


@MANY
@given(st.lists(st.tuples(st.integers(0, 7), st.sets(st.sampled_from("abcde"), min_size=1))))
def test_no_backend_is_passed_over(history: list[tuple[int, set[str]]]) -> None:
    """Between two picks of one backend, each that was ready all the time had its turn."""
    strategy = RoundRobin()
    strategy.prepare(of("abcde"))
    waiting: dict[str, set[str]] = {}  # name: those not picked since that name was
    ready = set("abcde")
    for count, after in history:
        for name in picks(strategy, count):
            assert not waiting.get(name)
            for others in waiting.values():
                others.discard(name)
            waiting[name] = ready - {name}
        ready = after
        strategy.prepare(of("".join(sorted(after))))
        for others in waiting.values():
            others.intersection_update(ready)  # those that left have no claim


def test_the_kernels_table_has_each_ready_backend_once() -> None:
    """In their order; without one it is empty."""
    strategy = RoundRobin()
    for names in ("abc", "b", ""):
        strategy.prepare(of(names))
        table = strategy.kernel_table(lambda _: 0, 0)
        assert "".join(table.backends[entry].name for entry in table.entries) == names

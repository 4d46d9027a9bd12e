"""``weighted``: the fewest flows per unit of weight, against a slow reference."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.flow import TCP
from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow
from paraglider.core.strategies.weighted import LeastFlows

FLOW = NewFlow(TCP, bytes(12), 0.0)
fills = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 65535)), min_size=1, max_size=8)


def of(flows_and_weights: list[tuple[int, int]]) -> tuple[Backend, ...]:
    """Backends a, b, c … with so many flows and such weights."""
    backends = []
    for index, (flows, weight) in enumerate(flows_and_weights):
        backend = Backend(chr(97 + index), bytes([index]), weight=weight)
        backend.flows = flows
        backends.append(backend)
    return tuple(backends)


@MANY
@given(fills, st.integers(0, 20))
def test_the_least_filled_is_picked(flows_and_weights: list[tuple[int, int]], worker: int) -> None:
    """The pick has the least flows/weight in exact arithmetic."""
    backends = of(flows_and_weights)
    strategy = LeastFlows(worker)
    strategy.prepare(backends)
    picked = strategy.pick(FLOW)
    rank = {b: Fraction(b.flows, b.weight) for b in backends}
    assert rank[picked] == min(rank.values())


@MANY
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.lists(st.integers(0, 10**6), max_size=80),
)
def test_lasting_flows_are_shared_by_weight(weights: list[int], ends: list[int]) -> None:
    """However flows come and go, right after a pick nobody could have been filled less."""
    backends = of([(0, weight) for weight in weights])
    strategy = LeastFlows()
    strategy.prepare(backends)
    live: list[Backend] = []
    for end in ends:
        if end % 3 == 0 and live:
            live.pop(end % len(live)).flows -= 1
            continue
        lowest = min(Fraction(b.flows, b.weight) for b in backends)
        picked = strategy.pick(FLOW)
        assert Fraction(picked.flows, picked.weight) == lowest
        picked.flows += 1
        live.append(picked)


def test_flows_that_last_fill_by_weight() -> None:
    """Sixty lasting flows over weights 3, 2, 1 are 30, 20, 10."""
    backends = of([(0, 3), (0, 2), (0, 1)])
    strategy = LeastFlows()
    strategy.prepare(backends)
    for _ in range(60):
        strategy.pick(FLOW).flows += 1
    assert [backend.flows for backend in backends] == [30, 20, 10]


def test_flows_that_do_not_last_are_shared_by_weight() -> None:
    """Each ends before the next one comes: no backend has any, and weights decide all the same."""
    strategy = LeastFlows()
    strategy.prepare(of([(0, 3), (0, 2), (0, 1)]))
    names = "".join(strategy.pick(FLOW).name for _ in range(60))
    assert [names.count(name) for name in "abc"] == [30, 20, 10]
    assert "ccc" not in names


def test_workers_begin_with_different_backends() -> None:
    """Else the first flows of all workers met at one backend."""
    begins = []
    for worker in range(3):
        strategy = LeastFlows(worker)
        strategy.prepare(of([(0, 1), (0, 1), (0, 1)]))
        begins.append(strategy.pick(FLOW).name)
    assert begins == ["a", "b", "c"]


def test_credit_is_no_more_than_a_cycle() -> None:
    """What was saved beside a heavy backend is not paid out in a burst when that one leaves."""
    backends = of([(0, 1000), (0, 1), (0, 1)])
    strategy = LeastFlows()
    strategy.prepare(backends)
    for _ in range(500):
        strategy.pick(FLOW)
    strategy.prepare(backends[1:])
    names = "".join(strategy.pick(FLOW).name for _ in range(10))
    assert abs(names.count("b") - names.count("c")) <= 2


def test_equals_behind_a_busy_one_share_evenly() -> None:
    """While one backend is busy, flows that do not last alternate between the other two."""
    backends = of([(5, 1), (0, 1), (0, 1)])
    strategy = LeastFlows()
    strategy.prepare(backends)
    assert "".join(strategy.pick(FLOW).name for _ in range(6)) == "bcbcbc"


def test_flows_elsewhere_do_not_count() -> None:
    """The fill is the backend's own count: nobody need be told of a flow that ended."""
    a, b = of([(2, 1), (1, 1)])
    strategy = LeastFlows()
    strategy.prepare((a, b))
    assert strategy.pick(FLOW) is b
    a.flows = 0
    assert strategy.pick(FLOW) is a

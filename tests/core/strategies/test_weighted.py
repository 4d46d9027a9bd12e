"""``weighted``: the fewest flows per unit of weight, against a slow reference."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from heapq import heappop, heappush
from math import sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.flow import TCP
from paraglider.core.pool import Backend
from paraglider.core.strategies.base import NewFlow
from paraglider.core.strategies.weighted import MOST, LeastFlows

FLOW = NewFlow(TCP, bytes(12), 0.0)
fills = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 65535)), min_size=1, max_size=8)


def of(flows_and_weights: list[tuple[int, int]]) -> tuple[Backend, ...]:
    """Backends a, b, c … with these numbers of flows and weights."""
    backends = []
    for index, (flows, weight) in enumerate(flows_and_weights):
        backend = Backend(chr(97 + index), index.to_bytes(2, "big"), weight=weight)
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
    """With any history, the picked backend had the fewest flows per weight."""
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
    """Each flow ends before the next begins, so no backend has any: the weights still decide the
    shares.
    """
    strategy = LeastFlows()
    strategy.prepare(of([(0, 3), (0, 2), (0, 1)]))
    names = "".join(strategy.pick(FLOW).name for _ in range(60))
    assert [names.count(name) for name in "abc"] == [30, 20, 10]
    assert "ccc" not in names


def test_workers_start_with_different_backends() -> None:
    """Otherwise the first flows of all workers would go to one backend."""
    begins = []
    for worker in range(3):
        strategy = LeastFlows(worker)
        strategy.prepare(of([(0, 1), (0, 1), (0, 1)]))
        begins.append(strategy.pick(FLOW).name)
    assert begins == ["a", "b", "c"]


def test_credit_is_no_more_than_a_cycle() -> None:
    """Credit from the time beside a heavy backend causes no burst when that one leaves."""
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
    """Only the backend's own counter is read: ended flows need no notification."""
    a, b = of([(2, 1), (1, 1)])
    strategy = LeastFlows()
    strategy.prepare((a, b))
    assert strategy.pick(FLOW) is b
    a.flows = 0
    assert strategy.pick(FLOW) is a


TICK = 0.05  # seconds between two tables


class Kernel:
    """Picks by the last table, which it gets every TICK seconds of the clock that is an argument;
    flows of which the worker has heard with the tick end when they are due.
    """

    def __init__(self, strategy: LeastFlows, backends: tuple[Backend, ...]) -> None:
        self.strategy = strategy
        self.backends = backends
        self.live = Counter[Backend]()
        self.picked = Counter[Backend]()
        self._ends: list[tuple[float, int]] = []
        self._turn = self._used = 0
        self._table_at = 0.0
        self._table: list[Backend] = []

    def tick(self, now: float) -> None:
        """End flows, and swap the table if it is time."""
        while self._ends and self._ends[0][0] <= now:
            self.live[self.backends[heappop(self._ends)[1]]] -= 1
        if now >= self._table_at:
            self._table_at = now + TICK
            table = self.strategy.kernel_table(self.live.__getitem__, self._turn - self._used)
            self._table = [table.backends[entry] for entry in table.entries]
            self._used = self._turn

    def open(self, now: float, seconds: float) -> None:
        """A new flow that lives for ``seconds``."""
        self.tick(now)
        backend = self._table[(self._turn - self._used) % len(self._table)]
        self._turn += 1
        self.picked[backend] += 1
        self.live[backend] += 1
        heappush(self._ends, (now + seconds, self.backends.index(backend)))


def fills_of(kernel: Kernel) -> list[float]:
    """Live flows for a unit of weight of each backend."""
    return [kernel.live[each] / each.weight for each in kernel.backends]


@pytest.mark.parametrize("rate", [20, 400, 4000], ids=["slow", "busy", "more than the table has"])
def test_the_kernels_live_flows_are_shared_by_weight(rate: int) -> None:
    """Over a long steady run the backends differ by few flows for a unit of weight: by what chance
    ends within a tick.
    """
    backends = of([(0, weight) for weight in (1, 2, 5, 10)])
    strategy, random = LeastFlows(), Random(1)
    strategy.prepare(backends)
    kernel = Kernel(strategy, backends)
    worst = 0.0
    for number in range(40_000):
        now = number / rate
        kernel.open(now, random.expovariate(1 / 3.0))
        if now > 10.0 or number > 20_000:
            worst = max(worst, max(fills_of(kernel)) - min(fills_of(kernel)))
    assert worst < 2 + sqrt(rate * TICK)


def test_a_backend_that_returns_is_filled_and_not_flooded() -> None:
    """It gets the new flows until it has its share, also those of several ticks."""
    backends = of([(0, 1)] * 4)
    strategy = LeastFlows()
    kernel = Kernel(strategy, backends)
    strategy.prepare(backends[:3])
    for number in range(3000):
        kernel.open(number / 1000, 1000.0)
    strategy.prepare(backends)
    for number in range(1000):
        kernel.open(3.0 + number / 1000, 1000.0)
    assert kernel.live[backends[3]] == pytest.approx(1000, abs=60)
    for number in range(400):
        kernel.open(4.0 + number / 1000, 1000.0)
    assert max(fills_of(kernel)) - min(fills_of(kernel)) <= 60


def test_flows_that_end_at_once_are_shared_by_weight() -> None:
    """No backend has a flow when a table is made, and yet each gets its share."""
    backends = of([(0, weight) for weight in range(1, 101)])
    strategy = LeastFlows()
    strategy.prepare(backends)
    kernel = Kernel(strategy, backends)
    for number in range(20_000):
        kernel.open(number / 100, 0.0)
    for each in backends:
        assert kernel.picked[each] == pytest.approx(20_000 * each.weight / 5050, abs=2)


def test_the_table_of_no_backend_is_empty() -> None:
    """The kernel then decides nothing."""
    strategy = LeastFlows()
    assert list(strategy.kernel_table(lambda _: 0, 0).entries) == []
    strategy.prepare(of([(0, 1)]))
    strategy.kernel_table(lambda _: 0, 0)
    strategy.prepare(())
    assert list(strategy.kernel_table(lambda _: 0, 200).entries) == []


def test_the_work_for_a_table_is_bounded() -> None:
    """As many entries as there are backends, and no more than MOST for few."""
    many, few = of([(n % 7, 1 + n % 3) for n in range(2000)]), of([(0, 1)] * 2)
    strategy = LeastFlows()
    strategy.prepare(many)
    assert len(strategy.kernel_table(lambda each: each.flows, 0).entries) == len(many)
    strategy.prepare(few)
    assert len(strategy.kernel_table(lambda _: 0, 1_000_000).entries) == MOST

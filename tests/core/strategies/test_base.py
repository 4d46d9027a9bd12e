"""What a strategy is told of a new flow, and what every strategy of the registry has to keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY, V4, V6, Family, packed

from paraglider.core.flow import TCP
from paraglider.core.pool import Backend, Event, Pool
from paraglider.core.strategies import STRATEGIES, NewFlow, create


@pytest.mark.parametrize("family", [V4, V6])
def test_a_new_flow_reads_its_key(family: Family) -> None:
    """Client, VIP and both ports are parts of the key, in either family."""
    client, vip = packed(family.client), packed(family.vip)
    flow = NewFlow(TCP, client + vip + b"\x9c\x40\x00\x50", 12.5)
    assert (flow.client, flow.vip) == (client, vip)
    assert (flow.client_port, flow.port) == (40000, 80)
    assert (flow.protocol, flow.now) == (TCP, 12.5)


def test_the_registry_has_the_names_of_the_configuration() -> None:
    """``rr``, ``wrr`` and ``weighted``."""
    assert set(STRATEGIES) == {"rr", "wrr", "weighted"}


def test_an_unknown_name_is_a_key_error() -> None:
    """Configuration checks names; here a wrong one is a programmer's mistake."""
    with pytest.raises(KeyError):
        create("random")


FLOW = NewFlow(TCP, bytes(12), 0.0)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@MANY
@given(
    worker=st.integers(0, 300),
    weights=st.lists(st.integers(0, 300), min_size=1, max_size=6),
    history=st.lists(
        st.one_of(
            st.just("pick"),
            st.tuples(st.integers(0, 5), st.sampled_from(Event)),
            st.tuples(st.integers(0, 5), st.integers(0, 300)),
        ),
        max_size=60,
    ),
)
def test_only_ready_backends_are_picked(
    name: str,
    worker: int,
    weights: list[int],
    history: list[str | tuple[int, Event] | tuple[int, int]],
) -> None:
    """Through any history of states and weights, a pick is one of the backends ready then."""
    pool = Pool([Backend(str(i), bytes([i]), weight=w) for i, w in enumerate(weights)])
    strategy = create(name, worker)
    pool.watch(strategy.prepare)
    for step in history:
        if isinstance(step, str):
            if pool.ready:
                picked = strategy.pick(FLOW)
                assert picked in pool.ready
                picked.flows += 1
            continue
        backend = pool.backends[step[0] % len(pool.backends)]
        if isinstance(step[1], Event):
            pool.apply(backend, step[1])
        else:
            pool.set_weight(backend, step[1])


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_equal_backends_share_evenly(name: str) -> None:
    """Thirty flows that do not last over three equal backends go 10/10/10, for any worker."""
    for worker in range(4):
        backends = tuple(Backend(str(i), bytes([i])) for i in range(3))
        strategy = create(name, worker)
        strategy.prepare(backends)
        picks = [strategy.pick(FLOW).name for _ in range(30)]
        assert [picks.count(backend.name) for backend in backends] == [10, 10, 10]


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_workers_start_apart(name: str) -> None:
    """One flow on each of three workers goes to three backends."""
    first = []
    for worker in range(3):
        backends = tuple(Backend(str(i), bytes([i])) for i in range(3))
        strategy = create(name, worker)
        strategy.prepare(backends)
        first.append(strategy.pick(FLOW).name)
    assert sorted(first) == ["0", "1", "2"]


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_no_strategy_can_see_the_flows(name: str) -> None:
    """What a pick costs cannot grow with the flows: a strategy is given no table to walk, and
    holds no more after many picks than after one.
    """
    backends = tuple(Backend(str(i), bytes([i]), weight=i + 1) for i in range(3))
    strategy = create(name)
    strategy.prepare(backends)
    strategy.pick(FLOW)

    def held() -> dict[str, int]:
        values = vars(strategy).items()
        return {name: len(value) for name, value in values if isinstance(value, (list, tuple))}

    before = held()
    assert all(size <= len(backends) for size in before.values())
    for _ in range(1000):
        strategy.pick(FLOW).flows += 1
    assert held() == before
    allowed = (int, list, tuple)
    assert all(isinstance(value, allowed) for value in vars(strategy).values())

"""The lifecycle of a backend, as a table held against the table, and the pool's ready set."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.pool import DATAGRAM_DRAIN, STEPS, TRANSITIONS, Backend, Event, Pool, State

READY, DRAIN, MAINT = State.READY, State.DRAIN, State.MAINT
DOWN, DRAIN_DOWN = State.DOWN, State.DRAIN_DOWN
STAYS = None

#: every state and every event, each with what comes of it
LIFE = [
    (READY, Event.SET_READY, STAYS),
    (READY, Event.SET_DRAIN, DRAIN),
    (READY, Event.SET_MAINT, MAINT),
    (READY, Event.CHECK_FAILED, DOWN),
    (READY, Event.CHECK_PASSED, STAYS),
    (DRAIN, Event.SET_READY, READY),
    (DRAIN, Event.SET_DRAIN, STAYS),
    (DRAIN, Event.SET_MAINT, MAINT),
    (DRAIN, Event.CHECK_FAILED, DRAIN_DOWN),
    (DRAIN, Event.CHECK_PASSED, STAYS),
    (MAINT, Event.SET_READY, READY),
    (MAINT, Event.SET_DRAIN, DRAIN),
    (MAINT, Event.SET_MAINT, STAYS),
    (MAINT, Event.CHECK_FAILED, STAYS),
    (MAINT, Event.CHECK_PASSED, STAYS),
    (DOWN, Event.SET_READY, STAYS),
    (DOWN, Event.SET_DRAIN, DRAIN_DOWN),
    (DOWN, Event.SET_MAINT, MAINT),
    (DOWN, Event.CHECK_FAILED, STAYS),
    (DOWN, Event.CHECK_PASSED, READY),
    (DRAIN_DOWN, Event.SET_READY, DOWN),
    (DRAIN_DOWN, Event.SET_DRAIN, STAYS),
    (DRAIN_DOWN, Event.SET_MAINT, MAINT),
    (DRAIN_DOWN, Event.CHECK_FAILED, STAYS),
    (DRAIN_DOWN, Event.CHECK_PASSED, DRAIN),
]


def pool_of(*weights: int, **life: Any) -> Pool:
    """A pool of ready backends a, b, c … with these weights and further arguments."""
    return Pool(
        [
            Backend(chr(97 + index), bytes([10, 0, 0, index]), weight=weight)
            for index, weight in enumerate(weights)
        ],
        **life,
    )


def names(backends: tuple[Backend, ...]) -> str:
    """The names of ``backends`` as one word."""
    return "".join(backend.name for backend in backends)


@pytest.mark.parametrize(("before", "event", "after"), LIFE)
def test_every_event_in_every_state(before: State, event: Event, after: State | None) -> None:
    """An event changes the state as in the table, or changes nothing and returns False."""
    pool = pool_of(1)
    (backend,) = pool.backends
    backend.state = before
    assert pool.apply(backend, event) is (after is not STAYS)
    assert backend.state is (after or before)


def test_the_list_above_is_complete() -> None:
    """Every state meets every event exactly once."""
    assert len(LIFE) == len(State) * len(Event)
    assert {(state, event) for state, event, _ in LIFE} == {(s, e) for s in State for e in Event}


def test_the_table_is_total_and_closed() -> None:
    """Every state has a row, every move ends in a state with a row, and none stays in place."""
    assert set(TRANSITIONS) == set(State)
    for before, row in TRANSITIONS.items():
        assert set(row) <= set(Event)
        assert set(row.values()) <= set(State) - {before}


def test_every_state_leads_back_to_ready() -> None:
    """No backend is ever lost: from each state some events make it take new flows again."""
    reaching = {READY}
    for _ in State:
        reaching |= {state for state, row in TRANSITIONS.items() if reaching & set(row.values())}
    assert reaching == set(State)


def test_health_never_undoes_the_operator() -> None:
    """Health checks keep the operator's state: a draining backend stays draining."""
    wanted = {READY: READY, DOWN: READY, DRAIN: DRAIN, DRAIN_DOWN: DRAIN, MAINT: MAINT}
    for before, row in TRANSITIONS.items():
        for event in (Event.CHECK_FAILED, Event.CHECK_PASSED):
            assert wanted[row.get(event, before)] is wanted[before]


def test_only_ready_backends_with_weight_take_flows() -> None:
    """The ready set has those in state READY whose weight is above 0, in the order of the file."""
    pool = pool_of(1, 0, 3, 1)
    assert names(pool.ready) == "acd"
    for event in (Event.SET_DRAIN, Event.SET_MAINT):
        pool.apply(pool.backends[2], event)
        assert names(pool.ready) == "ad"
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    assert names(pool.ready) == "d"
    pool.set_weight(pool.backends[1], 2)
    assert names(pool.ready) == "bd"
    pool.apply(pool.backends[2], Event.SET_READY)
    assert names(pool.ready) == "bcd"


def test_watchers_hear_of_the_start_and_of_every_change() -> None:
    """A watcher is called at once, then after each move and each weight, and not for nothing."""
    pool = pool_of(1, 1)
    heard: list[str] = []
    pool.watch(lambda ready: heard.append(names(ready)))
    assert heard == ["ab"]
    assert pool.apply(pool.backends[0], Event.CHECK_FAILED)
    assert not pool.apply(pool.backends[0], Event.CHECK_FAILED)
    pool.set_weight(pool.backends[1], 5)
    pool.set_weight(pool.backends[1], 0)
    assert heard == ["ab", "b", "b", ""]


def test_every_watcher_is_called() -> None:
    """Several services' strategies may watch one pool."""
    pool = pool_of(1, 1)
    first: list[str] = []
    second: list[str] = []
    pool.watch(lambda ready: first.append(names(ready)))
    pool.watch(lambda ready: second.append(names(ready)))
    pool.apply(pool.backends[1], Event.SET_MAINT)
    assert first == second == ["ab", "a"]


def test_a_negative_weight_is_refused() -> None:
    """The message has the remedy, and the weight stays."""
    pool = pool_of(2)
    with pytest.raises(ValueError, match="weight -1 is negative; write 0 or more"):
        pool.set_weight(pool.backends[0], -1)
    assert pool.backends[0].weight == 2


def test_the_repr_of_a_backend() -> None:
    """Its name, weight and state, for logs and tests that fail."""
    assert repr(pool_of(3).backends[0]) == "<Backend a weight 3 ready>"


# All down


def test_all_down_use_all() -> None:
    """Backends that are down take flows, except those in drain, maint or with weight 0; as soon as
    one is ready, only ready ones do.
    """
    pool = pool_of(1, 1, 1, 1, 0, all_down="use_all")
    a, b, c, d, e = pool.backends
    pool.apply(c, Event.SET_DRAIN)
    for each in (a, b, c, e):
        pool.apply(each, Event.CHECK_FAILED)
    assert names(pool.ready) == "d"
    pool.apply(d, Event.SET_MAINT)
    assert names(pool.ready) == "ab"
    pool.apply(b, Event.CHECK_PASSED)
    assert names(pool.ready) == "b"


def test_all_down_reject() -> None:
    """There is none that takes new flows."""
    pool = pool_of(1, 1, all_down="reject")
    for each in pool.backends:
        pool.apply(each, Event.CHECK_FAILED)
    assert pool.ready == ()


# What becomes of flows

LOST = [
    (READY, "reset", False),
    (DRAIN, "reset", False),
    (MAINT, "reset", False),
    (DOWN, "reset", True),
    (DRAIN_DOWN, "reset", True),
    *((state, "keep", False) for state in State),
]


@pytest.mark.parametrize(("state", "on_down", "lost"), LOST)
def test_which_flows_are_lost(state: State, on_down: str, lost: bool) -> None:
    """Flows of a backend that is down are lost if the service resets them, no others. Datagrams
    leave a backend in maint too.
    """
    pool = pool_of(1, 1, on_down=on_down)
    backend = pool.backends[0]
    backend.state = state
    pool.set_weight(pool.backends[1], 2)
    assert (backend.lost, backend.ready) == (lost, state is READY)
    assert backend.datagrams_lost == (lost or state is MAINT)


def test_flows_continue_where_all_backends_are_used() -> None:
    """A backend that is down and takes new flows keeps those it has; until another is ready."""
    pool = pool_of(1, 1, all_down="use_all")
    for each in pool.backends:
        pool.apply(each, Event.CHECK_FAILED)
    assert [each.lost for each in pool.backends] == [False, False]
    pool.apply(pool.backends[0], Event.CHECK_PASSED)
    assert [each.lost for each in pool.backends] == [False, True]
    pool.apply(pool.backends[1], Event.CHECK_PASSED)
    assert [each.lost for each in pool.backends] == [False, False]


@pytest.mark.parametrize(("timeout", "seconds"), [(None, DATAGRAM_DRAIN), (5.0, 5.0), (90.0, 90.0)])
def test_datagrams_leave_a_backend_that_drains(timeout: float | None, seconds: float) -> None:
    """After `drain_timeout`, as all flows do, or after a while; and not once it is ready again,
    also where another pool has taken the place of the first one meanwhile.
    """
    first = pool_of(1, 1, drain_timeout=timeout)
    backend = first.backends[0]
    first.apply(backend, Event.SET_DRAIN)
    first.tick(100.0)
    first.tick(100.0 + seconds - 0.1)
    assert not backend.datagrams_lost
    first.tick(100.0 + seconds)
    assert backend.datagrams_lost
    assert backend.lost == (timeout is not None)
    pool = Pool(first.backends, drain_timeout=timeout, before=first)
    assert backend.datagrams_lost
    pool.apply(backend, Event.SET_READY)
    pool.tick(1000.0)
    assert not backend.datagrams_lost
    assert not first.backends[1].datagrams_lost


# Slow start


def weights_over(pool: Pool, seconds: float, tick: float) -> list[tuple[int, ...]]:
    """The weights after each tick that changed them, from now (100.0) on."""
    seen: list[tuple[int, ...]] = []
    for number in range(int(seconds / tick) + 1):
        pool.tick(100.0 + number * tick)
        weights = tuple(each.weight for each in pool.backends)
        if not seen or seen[-1] != weights:
            seen.append(weights)
    return seen


def test_slow_start() -> None:
    """The weight of a returning backend grows in equal steps; watchers are called at each step
    only; then the weights are the configured ones.
    """
    pool = pool_of(1, 2, slow_start=20.0)
    backend = pool.backends[1]
    pool.apply(backend, Event.CHECK_FAILED)
    pool.apply(backend, Event.CHECK_PASSED)
    heard: list[int] = []
    pool.watch(lambda ready: heard.append(ready[1].weight))
    weights = weights_over(pool, 30.0, 0.25)
    assert weights == [(STEPS, 2 * step) for step in range(1, STEPS)] + [(1, 2)]
    assert heard == [weight for _, weight in weights]
    assert [each.full_weight for each in pool.backends] == [1, 2]


def test_slow_start_in_leaps() -> None:
    """With rare ticks, steps are skipped; the end is not later."""
    pool = pool_of(1, slow_start=20.0)
    pool.apply(pool.backends[0], Event.SET_MAINT)
    pool.apply(pool.backends[0], Event.SET_READY)
    assert weights_over(pool, 20.0, 9.0) == [(1,), (5,), (1,)]


@pytest.mark.parametrize(
    ("away", "back", "slow"),
    [
        (Event.CHECK_FAILED, Event.CHECK_PASSED, True),
        (Event.SET_MAINT, Event.SET_READY, True),
        (Event.SET_DRAIN, Event.SET_READY, False),
    ],
)
def test_which_backends_start_slowly(away: Event, back: Event, slow: bool) -> None:
    """Backends that may have been restarted start slowly; not at the start of the daemon, and not
    after a drain.
    """
    pool = pool_of(1, 1, slow_start=20.0)
    assert [each.weight for each in pool.backends] == [1, 1]
    pool.apply(pool.backends[0], away)
    pool.apply(pool.backends[0], back)
    assert [each.weight for each in pool.backends] == ([1, STEPS] if slow else [1, 1])


def test_a_slow_start_that_fails() -> None:
    """The slow start ends; the next one begins at its first step."""
    pool = pool_of(1, 1, slow_start=20.0)
    backend = pool.backends[0]
    for now in (100.0, 200.0):
        pool.apply(backend, Event.CHECK_FAILED)
        assert pool.backends[1].weight == 1
        pool.apply(backend, Event.CHECK_PASSED)
        pool.tick(now)
        pool.tick(now + 10.0)
        assert [each.weight for each in pool.backends] == [6, STEPS]


def test_a_weight_given_during_a_slow_start() -> None:
    """It applies fully at the end, and in proportion until then."""
    pool = pool_of(1, 1, slow_start=20.0)
    pool.apply(pool.backends[0], Event.CHECK_FAILED)
    pool.apply(pool.backends[0], Event.CHECK_PASSED)
    pool.tick(100.0)
    pool.set_weight(pool.backends[0], 7)
    assert [each.weight for each in pool.backends] == [7, STEPS]
    pool.tick(120.0)
    assert [each.weight for each in pool.backends] == [7, 1]


# Draining


def test_drained_with_the_last_flow() -> None:
    """A backend is done when it has no flow left; one that does not drain is never done."""
    pool = pool_of(1, 1)
    backend = pool.backends[0]
    assert not pool.drained(backend)
    backend.flows = 2
    pool.apply(backend, Event.SET_DRAIN)
    pool.tick(100.0)
    assert not pool.drained(backend)
    backend.flows = 0
    assert pool.drained(backend)
    pool.apply(backend, Event.SET_READY)
    assert not pool.drained(backend)


@pytest.mark.parametrize("on_down", ["reset", "keep"])
def test_drained_when_its_time_is_over(on_down: str) -> None:
    """Counted from the first tick; then its flows are lost, and watchers are called once. Failing
    checks do not prolong the drain; being ready again ends it.
    """
    pool = pool_of(1, 1, drain_timeout=30.0, on_down=on_down)
    backend = pool.backends[0]
    backend.flows = 2
    pool.apply(backend, Event.SET_DRAIN)
    pool.tick(100.0)
    pool.tick(129.0)
    pool.apply(backend, Event.CHECK_FAILED)
    pool.apply(backend, Event.CHECK_PASSED)
    heard: list[bool] = []
    pool.watch(lambda _: heard.append(backend.lost))
    assert (pool.drained(backend), backend.lost) == (False, False)
    for now in (129.9, 130.0, 131.0):
        pool.tick(now)
    assert (pool.drained(backend), backend.lost) == (True, True)
    assert heard == [False, True]
    pool.apply(backend, Event.SET_READY)
    assert (pool.drained(backend), backend.lost) == (False, False)
    pool.apply(backend, Event.SET_DRAIN)
    pool.tick(200.0)
    pool.tick(229.0)
    assert not pool.drained(backend)


def test_without_a_timeout_draining_never_ends_flows() -> None:
    """The flows are never lost."""
    pool = pool_of(1)
    backend = pool.backends[0]
    backend.flows = 1
    pool.apply(backend, Event.SET_DRAIN)
    for now in (0.0, 1e9):
        pool.tick(now)
    assert (pool.drained(backend), backend.lost) == (False, False)


@MANY
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(Event)), max_size=40))
def test_ready_always_follows_the_states(events: list[tuple[int, Event]]) -> None:
    """After any history, ``ready`` and the last call of the watchers equal a computation from the
    states.
    """
    pool = pool_of(1, 2, 0, 1)
    heard: list[tuple[Backend, ...]] = []
    pool.watch(heard.append)
    for index, event in events:
        pool.apply(pool.backends[index], event)
        ready = tuple(b for b in pool.backends if b.state is READY and b.weight)
        assert pool.ready == heard[-1] == ready


def test_another_pool_goes_on_where_one_was() -> None:
    """Drains keep their start time, slow starts their step; removed backends are dropped, and the
    old pool has no watchers.
    """
    old = pool_of(1, 4, 1, slow_start=100, drain_timeout=30)
    drains, rises, leaves = old.backends
    heard: list[str] = []
    old.watch(lambda ready: heard.append(names(ready)))
    drains.flows = 1
    for backend in (drains, leaves):
        old.apply(backend, Event.SET_DRAIN)
    old.apply(rises, Event.CHECK_FAILED)
    old.apply(rises, Event.CHECK_PASSED)
    for now in (100.0, 125.0):
        old.tick(now)
    new = Pool((rises, drains), slow_start=100, drain_timeout=30, before=old)
    old.unwatch_all()
    assert (rises.weight, drains.lost) == (12, False)
    said = list(heard)
    new.tick(131.0)
    assert (drains.lost, leaves.lost) == (True, False)
    assert rises.weight == 16
    assert heard == said
    assert Pool((rises, drains), before=new).backends[0].weight == 4

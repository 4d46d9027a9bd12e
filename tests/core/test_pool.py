"""The lifecycle of a backend, as a table held against the table, and the pool's ready set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.pool import TRANSITIONS, Backend, Event, Pool, State

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


def pool_of(*weights: int) -> Pool:
    """A pool of ready backends a, b, c … with these weights."""
    return Pool(
        [
            Backend(chr(97 + index), bytes([10, 0, 0, index]), weight=weight)
            for index, weight in enumerate(weights)
        ]
    )


def names(backends: tuple[Backend, ...]) -> str:
    """The names of ``backends`` as one word."""
    return "".join(backend.name for backend in backends)


@pytest.mark.parametrize(("before", "event", "after"), LIFE)
def test_every_event_in_every_state(before: State, event: Event, after: State | None) -> None:
    """An event moves a backend as the table says, or changes nothing and says so."""
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
    """Checks move a backend within what the operator wants of it: draining stays draining."""
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
    """The message says what would be right, and the weight stays."""
    pool = pool_of(2)
    with pytest.raises(ValueError, match="weight -1 is negative; write 0 or more"):
        pool.set_weight(pool.backends[0], -1)
    assert pool.backends[0].weight == 2


def test_a_backend_says_what_it_is() -> None:
    """Its name, weight and state, for logs and tests that fail."""
    assert repr(pool_of(3).backends[0]) == "<Backend a weight 3 ready>"


@MANY
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(Event)), max_size=40))
def test_ready_is_always_what_the_states_say(events: list[tuple[int, Event]]) -> None:
    """After any history, ``ready`` and what watchers last heard are recomputed from the states."""
    pool = pool_of(1, 2, 0, 1)
    heard: list[tuple[Backend, ...]] = []
    pool.watch(heard.append)
    for index, event in events:
        pool.apply(pool.backends[index], event)
        ready = tuple(b for b in pool.backends if b.state is READY and b.weight)
        assert pool.ready == heard[-1] == ready

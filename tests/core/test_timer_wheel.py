"""Tests of ``paraglider.core.timer_wheel``: against a list of flows with their seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import bare_flow as flow

from paraglider.core import timer_wheel
from paraglider.core.flow import Flow
from paraglider.core.timer_wheel import TimerWheel


def leave(one: Flow) -> None:
    """Remove ``one`` from its bucket as the flow table does: the last flow takes its slot."""
    last = one.bucket.pop()
    if last is not one:
        one.bucket[one.slot] = last
        last.slot = one.slot


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.floats(-5.0, 60.0)),
        st.tuples(st.just("leave"), st.integers(0, 1000)),
        st.tuples(st.just("pass"), st.floats(0.0, 20.0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_a_flow_comes_due_in_its_second(steps: list[tuple[str, float]]) -> None:
    """Compared with a list: the first second after the deadline, but never a past one. No flow is
    lost or early.
    """
    wheel, now, hand, model = TimerWheel(0.0), 0.0, 0, dict[Flow, int]()
    for number, (what, value) in enumerate(steps):
        if what == "add":
            one = flow(number)
            wheel.add(one, now + value)
            model[one] = max(int(now + value), hand) + 1
            assert one.bucket[one.slot] is one
        elif what == "leave" and model:
            one = list(model)[int(value) % len(model)]
            leave(one)
            del model[one]
        elif what == "pass":
            now += value
            while (bucket := wheel.due(now)) is not None:
                hand = min(model.values())
                assert hand <= now
                assert set(bucket) == {one for one, second in model.items() if second == hand}
                for one in tuple(bucket):
                    leave(one)
                    del model[one]
            assert all(second > now for second in model.values())
        assert wheel.first() == min(model.values(), default=None)
        assert sorted(one.forward_key for one in wheel.walk()) == sorted(
            one.forward_key for one in model
        )


@pytest.mark.parametrize(
    ("deadline", "due"), [(99.0, 101), (100.0, 101), (100.9, 101), (101.0, 102)]
)
def test_a_deadline_that_is_over_is_due_in_the_next_second(deadline: float, due: int) -> None:
    """No flow is added before the hand, where it would never be found."""
    wheel = TimerWheel(100.5)
    wheel.add(flow(), deadline)
    assert wheel.first() == due
    assert wheel.due(due - 0.01) is None
    assert wheel.due(float(due)) is not None


def test_the_hand_follows_what_came_due() -> None:
    """A flow that is put off to a second that is over comes after it."""
    wheel = TimerWheel(0.0)
    one = flow()
    wheel.add(one, 10.0)
    assert wheel.due(50.0) == [one]
    leave(one)
    wheel.add(one, 3.0)
    assert wheel.first() == 12


def test_an_empty_wheel() -> None:
    """Nothing is due, and no bucket of removed flows is kept."""
    wheel = TimerWheel(0.0)
    assert wheel.due(1e9) is None
    assert list(wheel.walk()) == []
    for number in range(100):
        wheel.add(one := flow(number), float(number))
        leave(one)
    assert wheel.first() is None
    assert (wheel._buckets, wheel._seconds) == ({}, [])


def test_a_walk_yields_flows_that_move() -> None:
    """A flow that moves to a later second meanwhile is yielded again, one that ended is not."""
    wheel = TimerWheel(0.0)
    flows = [flow(number) for number in range(3)]
    for second, one in enumerate(flows):
        wheel.add(one, float(second))
    walk = wheel.walk()
    met = [next(walk)]
    leave(flows[1])
    leave(flows[0])
    wheel.add(flows[0], 50.0)
    met += list(walk)
    assert met == [flows[0], flows[2], flows[0]]


def test_a_walk_meets_whoever_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many flows of one second come and go meanwhile; few are copied at a time."""
    monkeypatch.setattr(timer_wheel, "WALKED", 10)
    wheel = TimerWheel(0.0)
    stay, go = [flow(number) for number in range(50)], [flow(number) for number in range(50, 99)]
    for pair in zip(stay, go, strict=False):
        for one in pair:
            wheel.add(one, 5.0)
    wheel.add(stay[-1], 5.0)
    met = []
    for number, one in enumerate(wheel.walk()):
        met.append(one)
        if go:
            leave(go.pop(number * 7 % len(go)))
            wheel.add(flow(100 + number), 5.0)
    assert set(stay) <= set(met)
    assert len(met) < 2 * len(stay) + 50


def test_candidates_go_round_the_bucket() -> None:
    """The newest flow is returned only if it is the only one."""
    wheel = TimerWheel(0.0)
    flows = [flow(number) for number in range(4)]
    for one in flows:
        wheel.add(one, 0.5)
    assert [wheel.candidate(1) for _ in range(5)] == [*flows[:3], *flows[:2]]
    wheel.continue_at(1)
    assert wheel.candidate(1) is flows[1]
    wheel.continue_at(100)
    assert wheel.candidate(1) is flows[0]
    for one in flows[:3]:
        leave(one)
    assert wheel.candidate(1) is flows[3]
    wheel.add(flows[0], 5.0)
    assert wheel.candidate(6) is flows[0]

"""The guard: a flow gets a ready backend whatever a user's class does,
and the damage is bounded.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packets import MANY

from paraglider.core.flow import TCP
from paraglider.core.policy_guard import BENCH, STRIKES, PolicyGuard, describe_error
from paraglider.core.pool import Backend, Event, Pool
from paraglider.core.service import ALL_PORTS, VirtualService
from paraglider.core.strategies.base import NewFlow
from paraglider.core.strategies.rr import RoundRobin

A, B, C = (Backend(name, name.encode()) for name in "abc")
BUDGET = 0.005


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class Scripted:
    """A policy whose picks are scripted."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act
        self.told: list[tuple[Backend, ...]] = []
        self.asked: list[NewFlow] = []
        self.refuses = False

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Note it, or fail."""
        self.told.append(ready)
        if self.refuses:
            raise RuntimeError("not these")

    def pick(self, flow: NewFlow) -> Any:
        """Do the next step of the script."""
        self.asked.append(flow)
        return self.act()


def guarded(
    act: Callable[[], Any], ready: tuple[Backend, ...] = (A, B, C), clock: Clock | None = None
) -> tuple[PolicyGuard, Scripted]:
    """A guard over a policy that does ``act``; the fallback takes a, b, c in turn."""
    policy = Scripted(act)
    guard = PolicyGuard(policy, RoundRobin(), clock or Clock(), BUDGET)
    guard.prepare(ready)
    return guard, policy


def flow(now: float = 0.0) -> NewFlow:
    """A new flow at ``now``."""
    return NewFlow(TCP, bytes(12), now)


def fails(error: BaseException) -> Callable[[], Any]:
    """A step that raises ``error``."""

    def act() -> Any:
        raise error

    return act


def test_a_good_policy_decides() -> None:
    """Its pick is the result, it gets the flow itself, and no fault is counted."""
    guard, policy = guarded(lambda: C)
    asked = flow()
    assert [guard.pick(asked) for _ in range(3)] == [C, C, C]
    assert policy.asked == [asked] * 3
    assert policy.told == [(A, B, C)]
    assert {name: n for name, n in guard.counts().items() if n} == {"picked": 3}
    assert (guard.faults, guard.error) == (0, "")


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(1), RecursionError(), MemoryError(), StopIteration()]
)
def test_a_policy_that_raises_is_replaced(error: BaseException) -> None:
    """The fallback takes its turn, and the exception is counted and described."""
    guard, _ = guarded(fails(error))
    assert [guard.pick(flow()) for _ in range(3)] == [A, B, C]
    assert guard.raised == guard.faults == 3
    assert f"pick raised {type(error).__name__}" in guard.error


def test_an_interrupt_is_not_the_policys() -> None:
    """A KeyboardInterrupt is not caught."""
    guard, _ = guarded(fails(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        guard.pick(flow())


class Odd:
    """Equal to everything, and unhashable."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize("answer", [None, "a", 0, Odd(), Backend("a", b"a"), C])
def test_an_answer_that_is_no_ready_backend(answer: Any) -> None:
    """None, another type, a copy, or a backend that is not ready: the fallback picks."""
    guard, _ = guarded(lambda: answer, ready=(A, B))
    assert [guard.pick(flow()) for _ in range(3)] == [A, B, A]
    assert guard.wrong == guard.faults == 3
    assert guard.error == f"pick returned {type(answer).__name__}, no ready backend"


def test_a_slow_pick_counts_and_is_used() -> None:
    """A pick over the budget is used."""
    clock = Clock()

    def slow() -> Backend:
        clock.now += BUDGET * 2
        return C

    guard, _ = guarded(slow, clock=clock)
    assert guard.pick(flow()) is C
    assert (guard.slow, guard.picked, guard.faults) == (1, 1, 1)
    assert guard.error == "pick took 10.0 ms"


def test_within_the_budget_is_not_slow() -> None:
    """A pick that takes some of the budget is a good one."""
    clock = Clock()

    def leisurely() -> Backend:
        clock.now += BUDGET / 2
        return C

    guard, _ = guarded(leisurely, clock=clock)
    for _ in range(STRIKES * 2):
        guard.pick(flow())
    assert (guard.faults, guard.benched) == (0, 0)


@pytest.mark.parametrize("kind", ["raising", "wrong", "slow"])
def test_the_bench(kind: str) -> None:
    """STRIKES faults in a row bench it for BENCH seconds; one more fault after that, again."""
    clock = Clock()

    def slow() -> Backend:
        clock.now += 1.0
        return C

    act = {"raising": fails(ValueError()), "wrong": lambda: None, "slow": slow}[kind]
    guard, policy = guarded(act, clock=clock)
    for count in range(1, STRIKES + 1):
        guard.pick(flow(10.0))
        assert guard.benched == (count == STRIKES)
    for now in (10.0, 20.0, 9.9 + BENCH):
        assert guard.pick(flow(now)) in (A, B, C)
    assert len(policy.asked) == STRIKES
    assert guard.spared == 3
    guard.pick(flow(10.0 + BENCH))
    assert len(policy.asked) == STRIKES + 1
    assert guard.benched == 2
    guard.pick(flow(10.1 + BENCH))
    assert len(policy.asked) == STRIKES + 1


def test_back_from_the_bench() -> None:
    """After one good pick the policy is used as before."""
    guard, policy = guarded(fails(ValueError()))
    for _ in range(STRIKES):
        guard.pick(flow())
    policy.act = lambda: C
    assert guard.pick(flow(BENCH)) is C
    policy.act = fails(ValueError())
    for _ in range(STRIKES - 1):
        guard.pick(flow(BENCH))
    assert guard.benched == 1


def test_faults_that_are_not_in_a_row() -> None:
    """Now and then a fault: counted, replaced, and never benched."""
    guard, policy = guarded(lambda: C)
    for act in [fails(ValueError()), lambda: C] * 50:
        policy.act = act
        guard.pick(flow())
    assert (guard.raised, guard.picked, guard.benched) == (50, 50, 0)


def test_an_empty_pool_is_not_shown() -> None:
    """A policy may divide by the number of backends: it never is nought."""
    guard, policy = guarded(lambda: C)
    guard.prepare(())
    assert policy.told == [(A, B, C)]
    guard.prepare((B, C))
    assert policy.told == [(A, B, C), (B, C)]
    assert guard.pick(flow()) is C


def test_a_suspended_policy_is_not_called() -> None:
    """Neither pick nor prepare is called; after the suspension prepare is called first."""
    guard, policy = guarded(lambda: C)
    told = len(policy.told)
    guard.suspend(True)
    guard.prepare((A, B))
    assert [guard.pick(flow(at)) for at in (0.0, BENCH, 100 * BENCH)] == [A, B, A]
    assert (policy.asked, len(policy.told), guard.spared, guard.faults) == ([], told, 3, 0)
    guard.prepare((B, C))
    guard.suspend(False)
    assert guard.pick(flow()) is C
    assert policy.told[told:] == [(B, C)]


def test_a_prepare_that_raises() -> None:
    """prepare is called again at the next pick; if it fails, the policy is benched, then tried
    again.
    """
    guard, policy = guarded(lambda: C)
    policy.refuses = True
    guard.prepare((B, C))
    assert guard.pick(flow()) is B
    assert (guard.raised, guard.benched, policy.asked) == (2, 1, [])
    assert "prepare raised RuntimeError: not these at " in guard.error
    assert guard.pick(flow(BENCH - 1)) is C
    policy.refuses = False
    assert guard.pick(flow(BENCH)) is C
    assert guard.picked == 1


def test_a_change_reaches_a_benched_policy() -> None:
    """Changes while it was benched are passed to prepare afterwards."""
    guard, policy = guarded(lambda: None)
    for _ in range(STRIKES):
        guard.pick(flow())
    guard.prepare((B,))
    assert guard.pick(flow()) is B
    policy.act = lambda: B
    assert guard.pick(flow(BENCH)) is B
    assert policy.told[-1] == (B,)


@MANY
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["good", "stale", "none", "raise", "exit", "slow"]),
            st.sets(st.integers(0, 2)),
            st.floats(0, 40),
        )
    )
)
def test_every_flow_gets_a_ready_backend(history: list[Any]) -> None:
    """Through any history of faults, of changes of the pool and of time that passes."""
    clock = Clock()
    everything = (A, B, C)
    ready: tuple[Backend, ...] = everything
    act = ""
    now = 0.0

    def does() -> Any:
        if act == "slow":
            clock.now += 1.0
        if act in ("raise", "exit"):
            raise {"raise": KeyError("k"), "exit": SystemExit()}[act]
        stale = [backend for backend in everything if backend not in ready]
        return None if act == "none" else (stale or ready)[0] if act == "stale" else ready[-1]

    guard, _ = guarded(does)
    flows = 0
    for step in history:
        if isinstance(step, set):
            ready = tuple(everything[i] for i in sorted(step))
            guard.prepare(ready)
        elif isinstance(step, float):
            now += step
        elif ready:
            act = step
            assert guard.pick(flow(now)) in ready
            flows += 1
    assert guard.picked <= flows
    assert guard.spared <= flows


class AnewError(Exception):
    """An exception of this test only."""


def fails_anew() -> Any:
    """Raise a new exception without other references to it."""
    raise AnewError


def test_no_exception_is_kept() -> None:
    """Workers collect no cycles: a raised exception and its frames are freed at once."""
    guard, _ = guarded(fails_anew)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            guard.pick(flow())
        assert guard.raised == 3
        assert not [item for item in gc.get_objects() if isinstance(item, AnewError)]
    finally:
        gc.enable()


def test_a_policy_in_a_pool() -> None:
    """A guard is a strategy: a pool calls its prepare after changes."""
    pool = Pool([Backend("x", b"x"), Backend("y", b"y", weight=0)])
    guard, policy = guarded(lambda: pool.backends[1], ready=())
    pool.watch(guard.prepare)
    assert guard.pick(flow()).name == "x"
    pool.set_weight(pool.backends[1], 5)
    assert guard.pick(flow()).name == "y"
    assert [len(told) for told in policy.told] == [1, 2]


class UnspeakableError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no\nsuch   thing"), "ValueError: no such thing"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 200),
        (UnspeakableError(), "UnspeakableError"),
    ],
)
def test_described_in_a_line(error: Exception, text: str) -> None:
    """The kind and the text of an error, on one line and not too long."""
    assert describe_error(error) == text


def test_described_with_its_place() -> None:
    """The first line of the called code, not the innermost one."""
    with pytest.raises(ValueError, match="x") as caught:
        fails(ValueError("x"))()
    line = fails.__code__.co_firstlineno + 4
    assert describe_error(caught.value) == f"ValueError: x at {__file__}:{line}"


def test_the_called_class_is_visible_from_outside() -> None:
    """``called`` has the number during pick and prepare only, so that a call that does not return
    is named.
    """
    seen: list[int] = []
    guard, policy = guarded(lambda: seen.append(guard.called[0]) or A)
    guard.number = 77
    guard.pick(NewFlow(TCP, bytes(12), 0.0))
    assert (seen, guard.called[0]) == ([77], 0)
    policy.act = fails(RuntimeError("no"))
    guard.pick(NewFlow(TCP, bytes(12), 0.0))
    assert guard.called[0] == 0
    policy.refuses = True
    guard.prepare((A,))
    assert guard.called[0] == 0


@pytest.mark.parametrize(("declared", "adopts"), [({}, False), ({"hashes": True}, True),
                                                  ({"hashes": 1}, False)])  # fmt: skip
def test_a_class_declares_that_it_is_a_hash(declared: dict[str, object], adopts: bool) -> None:
    """Then its service adopts flows, once the class is imported, by its own picks among the
    backends that take new flows.
    """
    A, B, C = (Backend(name, name.encode()) for name in "abc")  # noqa: N806
    guard, policy = guarded(lambda: B)
    service = VirtualService(
        "web", bytes(4), (TCP,), ALL_PORTS, Pool([A, B, C]), guard, adopts=True
    )
    assert service.adoption is None
    declaring = type("Declaring", (Scripted,), declared)(policy.act)
    guard.set_policy(declaring)
    assert (service.adoption is not None) is adopts
    if service.adoption is not None:
        assert service.adoption.pick(NewFlow(TCP, bytes(12), 0.0)) is B
        A.flows = 1
        service.pool.apply(A, Event.SET_DRAIN)
        assert service.adoption.pick(NewFlow(TCP, bytes(12), 0.0)) is B
        assert service.adoption.pick(NewFlow(TCP, bytes(12), 0.0), (B,)) is None
        for each in (B, C):
            service.pool.apply(each, Event.CHECK_FAILED)
        assert service.adoption.pick(NewFlow(TCP, bytes(12), 0.0)) is None

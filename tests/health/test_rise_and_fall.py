"""Tests of ``paraglider.health.rise_and_fall``: by example, and against a slow reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.core.pool import Event
from paraglider.health.flapping import LONGEST_HOLD, PERIOD
from paraglider.health.rise_and_fall import FALLS, FASTEST, RiseAndFall, Thresholds

RULES = Thresholds(interval=2.0, rise=2, fall=3)


def run(machine: RiseAndFall, results: str, now: float, every: float = 2.0) -> list[Event | None]:
    """Feeds one result (+ or -) after the other, each ``every`` seconds."""
    events = []
    for number, result in enumerate(results):
        machine.check_started(now + number * every)
        events.append(machine.result(result == "+", now + number * every, 0.0))
    return events


def changes(events: list[Event | None]) -> dict[int, Event]:
    """The numbers of the results that brought a change."""
    return {index: event for index, event in enumerate(events) if event is not None}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("+--", {}),
        ("+---", {3: Event.CHECK_FAILED}),
        ("+--+--+--", {}),
        ("+-----", {3: Event.CHECK_FAILED}),
        ("+---+", {3: Event.CHECK_FAILED}),
        ("+---++", {3: Event.CHECK_FAILED, 5: Event.CHECK_PASSED}),
        ("+---+-++", {3: Event.CHECK_FAILED, 7: Event.CHECK_PASSED}),
        ("-", {0: Event.CHECK_FAILED}),
        ("-++", {0: Event.CHECK_FAILED, 2: Event.CHECK_PASSED}),
        ("++++", {}),
    ],
)
def test_rise_and_fall(results: str, expected: dict[int, Event]) -> None:
    """Consecutive results count, and the first failure of an unproven backend is enough."""
    assert changes(run(RiseAndFall(RULES, 0.0, 0.0), results, 0.0)) == expected


def test_faster_while_in_doubt() -> None:
    """A quarter of the interval while a series is open, the interval when it is decided."""
    machine = RiseAndFall(RULES, 100.0, 0.0)
    waits = []
    for result in "++-+---+++":
        began = machine.due
        machine.check_started(began)
        machine.result(result == "+", began, 0.0)
        waits.append(machine.due - began)
    assert waits == [2.0, 2.0, 0.5, 2.0, 0.5, 0.5, 2.0, 0.5, 2.0, 2.0]


def test_doubt_has_a_least_interval() -> None:
    """Checks in doubt are at least FASTEST apart, or the interval if that is shorter."""
    assert Thresholds(0.2, 2, 3).fast == FASTEST
    assert Thresholds(0.1, 2, 3).fast == 0.1
    assert Thresholds(10, 2, 3).fast == 2.5


def test_first_checks_are_spread() -> None:
    """First checks of hundreds of backends are spread over time, and none is late."""
    dues = [RiseAndFall(RULES, 10.0, number / 100).due for number in range(100)]
    assert len(set(dues)) == 100
    assert min(dues) >= 10.0
    assert max(dues) <= 10.0 + RULES.fast


@given(st.floats(0, 1, exclude_max=True), st.booleans())
def test_chance_only_shortens(chance: float, passed: bool) -> None:
    """Jitter never puts a check off."""
    machine = RiseAndFall(RULES, 0.0, 0.0)
    machine.check_started(0.0)
    machine.result(True, 0.0, 0.0)
    machine.check_started(2.0)
    machine.result(passed, 2.1, chance)
    wait = RULES.interval if passed else RULES.fast
    assert 2.0 + 0.9 * wait <= machine.due <= 2.0 + wait


def test_a_long_check_is_followed_at_once() -> None:
    """A check that took longer than the interval puts nothing off and doubles nothing."""
    machine = RiseAndFall(RULES, 0.0, 0.0)
    machine.check_started(0.0)
    machine.result(True, 7.0, 0.0)
    assert machine.due == 7.0


def test_hint_brings_the_check_forward() -> None:
    """A hint makes the check due at once when the last one is long enough ago."""
    machine = RiseAndFall(RULES, 0.0, 0.0)
    machine.check_started(0.0)
    machine.result(True, 0.0, 0.0)
    assert machine.hint(1.0)
    assert machine.due == 1.0


def test_hints_are_bounded() -> None:
    """A thousand hints a second lead to no more checks than doubt does."""
    machine = RiseAndFall(RULES, 0.0, 0.0)
    began = []
    for tick in range(10_000):
        now = tick / 1000
        machine.hint(now)
        if machine.due <= now:
            machine.check_started(now)
            began.append(now)
            machine.result(True, now, 0.0)
    assert 15 <= len(began) <= 10 / RULES.hinted + 1


def test_hints_reach_checks_that_are_rare() -> None:
    """If checks are due once an hour, hints cause at most one per second."""
    rules = Thresholds(interval=3600.0, rise=2, fall=3)
    assert (rules.fast, rules.hinted, RULES.hinted) == (900.0, 1.0, 0.5)


def test_hint_during_a_check_is_not_lost() -> None:
    """A hint that comes while a check is under way has another one follow soon."""
    machine = RiseAndFall(RULES, 0.0, 0.0)
    machine.check_started(0.0)
    machine.hint(0.1)
    machine.result(True, 0.2, 0.0)
    assert machine.due == RULES.fast


def test_hint_about_a_backend_that_is_down() -> None:
    """A backend that is down is not checked sooner."""
    machine = RiseAndFall(RULES, 0.0, 0.0)
    run(machine, "-", 0.0)
    due = machine.due
    assert not machine.hint(0.1)
    assert machine.due == due


def test_flapping_is_held_down() -> None:
    """The third fall in a minute holds it down; it comes up with the first pass after that."""
    machine = RiseAndFall(Thresholds(0.2, 1, 1), 0.0, 0.0)
    events = run(machine, "-+-+-+++", 0.0, every=1.0)
    assert list(changes(events)) == [0, 1, 2, 3, 4]
    assert machine.held_until == 4.0 + PERIOD
    assert run(machine, "+", 63.9) == [None]
    assert run(machine, "+", 64.0) == [Event.CHECK_PASSED]
    assert machine.held_until == 0


def test_a_held_backend_must_still_pass() -> None:
    """After the end of a hold, `rise` passes in a row are needed."""
    machine = RiseAndFall(Thresholds(0.2, 2, 1), 0.0, 0.0)
    run(machine, "-++-++-", 0.0, every=1.0)
    assert machine.held_until
    assert run(machine, "-+", machine.held_until + 1) == [None, None]
    assert run(machine, "+", machine.held_until + 3) == [Event.CHECK_PASSED]


def test_holds_grow_and_are_forgotten() -> None:
    """Each fall soon after a hold doubles it, up to a bound; after a calm period it starts anew."""
    machine = RiseAndFall(Thresholds(0.2, 1, 1), 0.0, 0.0)
    run(machine, "-+-+-", 0.0, every=1.0)
    now, holds = 4.0, []
    for _ in range(7):
        holds.append(machine.held_until - now)
        run(machine, "+-", machine.held_until, every=1.0)
        now = now + holds[-1] + 1.0
    assert holds == [60, 120, 240, 480, 960, LONGEST_HOLD, LONGEST_HOLD]
    run(machine, "+", machine.held_until)
    now += LONGEST_HOLD
    run(machine, "-", now + PERIOD)
    assert machine.held_until == 0


def test_other_rules_keep_what_is_known() -> None:
    """A reload with another interval changes when, not whether, a backend is up."""
    machine = RiseAndFall(Thresholds(100.0, 2, 3), 0.0, 0.0)
    run(machine, "-", 0.0)
    machine.set_rules(Thresholds(1.0, 1, 1), 5.0)
    assert not machine.up
    assert machine.due == 5.0
    assert run(machine, "+", 5.0) == [Event.CHECK_PASSED]


class Reference:
    """The same rules, computed from the whole history."""

    def __init__(self, rules: Thresholds) -> None:
        self.rules = rules
        self.results: list[tuple[float, bool]] = []
        self.moves: list[tuple[float, Event]] = []

    def held_until(self) -> float:
        """Computed from all falls."""
        hold, until = 0.0, 0.0
        for index, (at, event) in enumerate(self.moves):
            if event is Event.CHECK_PASSED:
                continue
            falls = [t for t, e in self.moves[: index + 1] if e is Event.CHECK_FAILED]
            up_since = self.moves[index - 1][0] if index else 0.0
            if at - up_since >= PERIOD:
                hold = 0.0
            recent = [t for t in falls[-FALLS:] if at - t < PERIOD]
            if hold:
                hold = min(2 * hold, LONGEST_HOLD)
            elif len(recent) == FALLS:
                hold = PERIOD
            until = at + hold if hold else 0.0
        return until

    def result(self, passed: bool, now: float) -> Event | None:
        """Computed from the results since the last change."""
        self.results.append((now, passed))
        up = not self.moves or self.moves[-1][1] is Event.CHECK_PASSED
        since = len(self.results) - self.considered()
        tail = [p for _, p in self.results[-since:]] if since else []
        event = None
        if up and not passed:
            alone = len(self.results) == 1
            if alone or (len(tail) >= self.rules.fall and not any(tail[-self.rules.fall :])):
                event = Event.CHECK_FAILED
        elif not up and passed and now >= self.held_until():
            enough = len(tail) >= self.rules.rise and all(tail[-self.rules.rise :])
            event = Event.CHECK_PASSED if enough else None
        if event is not None:
            self.moves.append((now, event))
            self.at_change = len(self.results)
        return event

    at_change = 0

    def considered(self) -> int:
        """Results up to the last change count no more."""
        return self.at_change


histories = st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 1.0, 7.0, 30.0, 61.0])))


@given(st.integers(1, 4), st.integers(1, 4), histories)
def test_against_the_reference(rise: int, fall: int, history: list[tuple[bool, float]]) -> None:
    """With any history, the machine agrees with the reference."""
    rules = Thresholds(1.0, rise, fall)
    machine, reference, now = RiseAndFall(rules, 0.0, 0.0), Reference(rules), 0.0
    for passed, pause in history:
        now += pause
        machine.check_started(now)
        assert machine.result(passed, now, 0.0) == reference.result(passed, now)


@given(st.integers(1, 3), st.integers(1, 3), histories)
def test_no_backend_thrashes_its_pool(
    rise: int, fall: int, history: list[tuple[bool, float]]
) -> None:
    """A backend falls at most three times in any minute, and changes alternate."""
    machine, now, falls = RiseAndFall(Thresholds(0.1, rise, fall), 0.0, 0.0), 0.0, []
    last = Event.CHECK_PASSED
    for passed, pause in history:
        now += pause
        machine.check_started(now)
        event = machine.result(passed, now, 0.0)
        assert event is not last
        last = event or last
        if event is Event.CHECK_FAILED:
            falls.append(now)
            assert len([at for at in falls if now - at < PERIOD]) <= FALLS


def test_up_and_down_each_second_for_an_hour() -> None:
    """A backend that flaps without end changes the pool a few times an hour."""
    machine, moves = RiseAndFall(Thresholds(0.1, 1, 1), 0.0, 0.0), 0
    for second in range(3600):
        machine.check_started(float(second))
        moves += machine.result(second % 2 == 0, float(second), 0.0) is not None
    assert moves <= 20

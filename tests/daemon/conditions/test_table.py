"""Conditions are logged once when they begin and once when they end, for any number of reports."""

from __future__ import annotations

import structlog

from paraglider.daemon.conditions.table import MOST, QUIET, Condition, Conditions

LOW = Condition("degraded", "drops packets; give it more cores")
HIGH = Condition("unhealthy", "is dead; it is replaced")


class Clock:
    """Time as the test has it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Monotonic seconds."""
        return self.now


def test_logged_at_the_beginning_and_at_the_end() -> None:
    """A repeated report logs nothing, also with another text."""
    with structlog.testing.capture_logs() as logs:
        conditions = Conditions()
        for text in ("9 of 10 flows; raise it", "10 of 10 flows; raise it"):
            conditions.report("workers", {"worker 0": Condition("degraded", text)})
        assert [standing.line for standing in conditions] == ["worker 0: 10 of 10 flows; raise it"]
        conditions.report("workers", {})
        conditions.report("workers", {})
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "worker 0: 9 of 10 flows; raise it"),
        ("info", "worker 0: no longer degraded"),
    ]
    assert not list(conditions)


def test_what_is_logged_elsewhere_is_not_logged_again() -> None:
    """Neither its beginning nor its end; `health` has it."""
    with structlog.testing.capture_logs() as logs:
        conditions = Conditions()
        conditions.report("processes", {"worker 0": HIGH}, logged=False)
        assert conditions.status == "unhealthy"
        conditions.report("processes", {}, logged=False)
    assert not logs


def test_the_worst_counts_and_comes_first() -> None:
    """Sources are independent; the end of one's condition leaves the others'."""
    conditions = Conditions()
    assert conditions.status == "healthy"
    conditions.report("host", {"eth0": LOW})
    assert conditions.status == "degraded"
    conditions.report("workers", {"worker 0": HIGH})
    assert conditions.status == "unhealthy"
    assert [(s.source, s.object) for s in conditions] == [("workers", "worker 0"), ("host", "eth0")]
    conditions.report("workers", {})
    assert [(s.source, s.condition) for s in conditions] == [("host", LOW)]


def test_worse_is_news_and_better_is_not() -> None:
    """The log has the object twice; since when it is, is when it began."""
    clock = Clock()
    with structlog.testing.capture_logs() as logs:
        conditions = Conditions(clock)
        conditions.report("host", {"eth0": LOW})
        clock.now += 5
        for condition in (HIGH, LOW, LOW):
            conditions.report("host", {"eth0": condition})
    assert [line["severity"] for line in logs] == ["degraded", "unhealthy"]
    assert [standing.since for standing in conditions] == [1000.0]


def test_a_flapping_condition_is_logged_rarely() -> None:
    """A condition that flaps does not fill the log; `health` has it."""
    clock = Clock()
    with structlog.testing.capture_logs() as logs:
        conditions = Conditions(clock)
        for _ in range(10):
            conditions.report("host", {"eth0": LOW})
            assert conditions.status == "degraded"
            clock.now += 1
            conditions.report("host", {})
        begun = [line for line in logs if line["log_level"] == "warning"]
        assert len(begun) == 1
        clock.now += QUIET
        conditions.report("host", {"eth0": LOW})
    assert len([line for line in logs if line["log_level"] == "warning"]) == 2


def test_a_source_that_finds_no_end_is_bounded() -> None:
    """A bounded number of objects and a count of the rest, with the worst severity."""
    conditions = Conditions()
    found = {f"object {number}": LOW for number in range(MOST)}
    conditions.report("host", {**found, "one more": HIGH, "another": LOW})
    assert len(list(conditions)) == MOST + 1
    worst = next(iter(conditions))
    assert worst.line == "host: 2 more objects have problems"
    assert worst.condition.severity == "unhealthy"


def test_a_version_grows_with_each_change() -> None:
    """The same report again is none."""
    conditions = Conditions()
    seen = [conditions.version]
    for found in ({}, {"a": Condition("degraded", "x")}, {"a": Condition("unhealthy", "x")}):
        for _ in range(2):
            conditions.report("source", found)
            seen.append(conditions.version)
    assert seen == [0, 0, 0, 1, 1, 2, 2]

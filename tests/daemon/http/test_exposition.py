"""Prometheus' text format: rows and unknown values."""

from __future__ import annotations

from typing import Any

from paraglider.daemon.http.exposition import (
    Described,
    MetricSection,
    count,
    each,
    exposed,
    plain,
    since,
)

ROWS: list[dict[str, Any]] = [
    {"name": "a", "now": 100.0, "size": 3, "well": True, "age": 2.5, "counts": {"short": 2}},
    {"name": 'b"\\', "now": 100.0, "size": None, "well": False, "age": None, "counts": {}},
]


def text(*metrics: Described) -> list[str]:
    """The lines of the samples of ``metrics`` in ROWS."""
    section = MetricSection(lambda status: status["rows"], ("name",), metrics)
    lines = exposed([section], {"rows": ROWS}).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_a_gauge_and_a_count() -> None:
    """Their kind is in their name, their help and type in the text."""
    section = MetricSection(
        lambda status: [status],
        (),
        (
            Described("p_size", "How large.", plain("size")),
            Described("p_total", "All.", plain("n")),
        ),
    )
    assert exposed([section], {"size": 2, "n": 7}).decode().splitlines() == [
        "# HELP p_size How large.",
        "# TYPE p_size gauge",
        "p_size 2.0",
        "# HELP p_total All.",
        "# TYPE p_total counter",
        "p_total 7.0",
    ]


def test_what_is_not_known_has_no_sample() -> None:
    """None is left out, false is 0; a metric without samples is not listed."""
    assert text(Described("p_size", "", plain("size"))) == ['p_size{name="a"} 3.0']
    assert text(Described("p_well", "", plain("well"))) == [
        'p_well{name="a"} 1.0',
        'p_well{name="b\\"\\\\"} 0.0',
    ]
    assert text(Described("p_nothing", "", plain("size", "below"))) == []


def test_values_by_a_label() -> None:
    """One for each name, 0 for names without a count; none without counts."""
    reasons = each(("counts",), {"short": "cut", "long": "long"})
    assert text(Described("p_total", "", reasons, ("why",))) == [
        'p_total{name="a",why="cut"} 2.0',
        'p_total{name="a",why="long"} 0.0',
        'p_total{name="b\\"\\\\",why="cut"} 0.0',
        'p_total{name="b\\"\\\\",why="long"} 0.0',
    ]
    assert text(Described("p_total", "", each(("size",), {"x": "x"}), ("why",))) == []


def test_a_missing_count_is_zero() -> None:
    """A count that is left out is 0."""
    assert [line[-3:] for line in text(Described("p_total", "", count("short")))] == ["2.0", "0.0"]


def test_since_when() -> None:
    """Seconds ago are a time since the epoch; never, where nothing is known."""
    assert text(Described("p_seconds", "", since("age"))) == ['p_seconds{name="a"} 97.5']

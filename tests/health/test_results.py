"""Tests of ``paraglider.health.results``: the bounds of reports."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from paraglider.core.pool import Event
from paraglider.health.codes import Code
from paraglider.health.results import (
    LONGEST_LINE,
    LONGEST_NAME,
    CheckReport,
    DiscoveredHost,
    HealthChange,
    line,
)

REPORT = CheckReport("web", "10.0.0.1", True, Code.L4OK, "connected", 0.1, 5.0)
CHANGE = HealthChange("web", "10.0.0.1", Event.CHECK_FAILED, "refused", 5.0)
FOUND = DiscoveredHost(True, "10.0.0.9", "answered", 5.0)  # type: ignore[arg-type]
REPORTS, CHANGES, HOSTS = map(TypeAdapter, (CheckReport, HealthChange, DiscoveredHost))


@given(st.text(st.characters(), max_size=400))
def test_a_line_is_one_line(text: str) -> None:
    """Any answer of a backend becomes one short line of printable characters."""
    said = line(text)
    assert said.isprintable()
    assert len(said) == min(len(text), LONGEST_LINE)
    for shown, given_ in zip(said, text, strict=False):
        assert shown == (given_ if given_.isprintable() else " ")


def test_a_line_that_is_printable_within_its_bound_is_left_alone() -> None:
    """A printable line within its bound is not changed."""
    assert line("refused by 10.0.0.1") == "refused by 10.0.0.1"
    assert line("a" * LONGEST_LINE + "\n") == "a" * LONGEST_LINE
    assert line("a\nb\x1b[31m") == "a b [31m"


@pytest.mark.parametrize("passed", [True, False, None])
def test_a_report_is_accepted_as_the_monitor_makes_it(passed: bool | None) -> None:
    """A check that could not take place neither passed nor failed."""
    report = REPORT._replace(passed=passed)
    assert REPORTS.validate_python(report) == report
    assert CHANGES.validate_python(CHANGE).held_until == 0.0


def test_details_are_cut_and_not_refused() -> None:
    """Details are for people: a long one is truncated, and the report is kept."""
    report = REPORTS.validate_python(REPORT._replace(detail="x\n" * 1000))
    assert report.detail == "x " * (LONGEST_LINE // 2)
    assert CHANGES.validate_python(CHANGE._replace(detail="a\x00b")).detail == "a b"
    assert HOSTS.validate_python(FOUND._replace(detail="a\tb")).detail == "a b"


@pytest.mark.parametrize(
    ("adapter", "value", "changes"),
    [
        (REPORTS, REPORT, {"service": "a" * (LONGEST_NAME + 1)}),
        (REPORTS, REPORT, {"backend": "a" * (LONGEST_NAME + 1)}),
        (REPORTS, REPORT, {"code": "L8OK"}),
        (REPORTS, REPORT, {"duration": -0.1}),
        (REPORTS, REPORT, {"duration": float("nan")}),
        (REPORTS, REPORT, {"duration": 86401.0}),
        (REPORTS, REPORT, {"at": -1.0}),
        (REPORTS, REPORT, {"at": float("inf")}),
        (CHANGES, CHANGE, {"event": Event.SET_DRAIN}),
        (CHANGES, CHANGE, {"held_until": 1e11}),
        (HOSTS, FOUND, {"address": "web"}),
        (HOSTS, FOUND, {"at": float("nan")}),
    ],
)
def test_what_is_out_of_bounds_is_refused(
    adapter: TypeAdapter[Any], value: Any, changes: dict[str, Any]
) -> None:
    """A monitor cannot send other values, nor events of the operator."""
    with pytest.raises(ValidationError):
        adapter.validate_python(value._replace(**changes))


def test_the_bounds_are_within() -> None:
    """The largest that there is."""
    most = REPORT._replace(service="a" * LONGEST_NAME, duration=86400.0, at=1e10)
    assert REPORTS.validate_python(most) == most

"""Tests of ``paraglider.config.diagnostics``: paths, marks, and the lines of a report."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.diagnostics import (
    ConfigError,
    Mark,
    Marks,
    Path,
    PathSet,
    PlacedProblem,
    Problem,
    report,
)
from paraglider.config.diagnostics import spelled as spell

PATHS = st.lists(st.sampled_from(["a", "b", 0, 1]), max_size=4).map(tuple)


@given(st.lists(PATHS, max_size=5), PATHS)
def test_path_set_agrees_with_the_definition(paths: list[Path], path: Path) -> None:
    """A set touches a path when one of its members is a prefix of it, or the other way round."""
    slow = any(
        path[: min(len(path), len(other))] == other[: min(len(path), len(other))] for other in paths
    )
    assert PathSet(paths).touches(path) == slow


def test_path_spelled_as_a_person_writes_it() -> None:
    """Keys are joined by dots, indices stand in brackets."""
    assert spell(("services", 0, "ports")) == "services[0].ports"
    assert spell(()) == ""


def test_mark_of_something_absent_is_that_of_its_section() -> None:
    """A path that the file lacks points at the nearest enclosing value."""
    marks = Marks(values={(): Mark(1, 1), ("a",): Mark(2, 4)}, keys={("a",): Mark(2, 1)})
    assert marks.value(("a", "b", 0)) == Mark(2, 4)
    assert marks.value(("c",)) == Mark(1, 1)
    assert marks.of(Problem(("a",), "w", "r", at="key")) == Mark(2, 1)
    assert marks.of(Problem(("a",), "w", "r", mark=Mark(9, 9))) == Mark(9, 9)


def test_the_report_is_in_the_order_of_the_file_without_duplicates() -> None:
    """Lines sort by place, numerically, and the same finding appears once."""
    marks = Marks(values={(): Mark(1, 1), ("a",): Mark(10, 4), ("b",): Mark(9, 12)})
    problems = [Problem(("a",), "x", "y"), Problem(("b",), "z", "y"), Problem(("a",), "x", "y")]
    found = report("f", marks, problems)
    assert list(map(str, found)) == ["f:9:12: z; y", "f:10:4: x; y"]
    assert [(each.path, each.mark) for each in found] == [
        (("b",), Mark(9, 12)),
        (("a",), Mark(10, 4)),
    ]


def test_config_error_reads_as_its_lines() -> None:
    """The text of the error is one line a problem, and it is the operator's mistake."""
    error = ConfigError(["f:1:1: a; b", "f:2:1: c; d"])
    assert str(error) == "f:1:1: a; b\nf:2:1: c; d"
    assert error.exit_code == 1
    findings = (
        PlacedProblem("f", Mark(1, 2), "a", "b", ("x",)),
        PlacedProblem("g", None, "c", "d"),
    )
    assert ConfigError(findings).lines == ("f:1:2: a; b", "g: c; d")
    assert ConfigError(findings).findings == findings


def test_finding_that_rests_on_a_mistake_is_recognised() -> None:
    """A finding is worth nothing when a value it rests on is itself in error."""
    finding = Problem(("a", "x"), "w", "r", needs=(("b",),))
    assert finding.rests_on(PathSet([("b", "deeper")]))
    assert finding.rests_on(PathSet([("a",)]))
    assert not finding.rests_on(PathSet([("c",)]))


def test_included_files_come_last_and_have_their_name() -> None:
    """A mark in an included file names that; the main file's lines come first."""
    problems = [
        Problem((), "b", "x", mark=Mark(1, 1, "inner")),
        Problem((), "c", "x", mark=Mark(9, 2)),
        Problem((), "a", "x", mark=Mark(2, 1, "inner")),
    ]
    assert list(map(str, report("main", Marks(), problems))) == [
        "main:9:2: c; x",
        "inner:1:1: b; x",
        "inner:2:1: a; x",
    ]

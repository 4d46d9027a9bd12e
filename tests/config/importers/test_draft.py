"""Tests of ``paraglider.config.importers.draft``."""

from __future__ import annotations

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.draft import MOST, Draft, number


def test_sections_and_lists_come_into_being() -> None:
    """A value brings the sections and lists around it, each with the first place in them."""
    draft = Draft()
    draft.set(("a", 0, "b"), 1, Mark(3, 4), "why")
    draft.set(("a", 0, "c"), 2, Mark(5, 1))
    draft.set(("a", 1), {}, Mark(6, 1))
    draft.set(("a", 1, "b"), 3, Mark(7, 1))
    draft.set(("a", 1, "b"), 4, Mark(8, 1))
    assert draft.data == {"a": [{"b": 1, "c": 2}, {"b": 4}]}
    assert draft.comments == {("a", 0, "b"): "why"}
    assert draft.marks.value(("a",)) == draft.marks.value(("a", 0)) == Mark(3, 4)
    assert draft.marks.value(("a", 0, "c")) == Mark(5, 1)
    assert draft.marks.value(("a", 1, "b")) == Mark(8, 1)


def test_notes_end_somewhere() -> None:
    """After a thousand notes the last one says that there are more."""
    draft = Draft()
    for line in range(1, 2 * MOST):
        draft.note(Mark(line, 1), "a; b")
    assert len(draft.notes) == MOST
    assert draft.notes[-1].what == "here and below more has no counterpart"
    assert draft.notes[-1].mark == Mark(MOST, 1)


def test_problems_make_it_hopeless() -> None:
    """A thousand mistakes are enough."""
    draft = Draft()
    for line in range(1, MOST):
        draft.mistake(("a",), Mark(line, 1), "a; b; c")
    assert not draft.too_many_problems
    assert (draft.problems[0].what, draft.problems[0].remedy) == ("a", "b; c")
    draft.mistake(("a",), Mark(1, 1), "a; b")
    assert draft.too_many_problems


def test_number() -> None:
    """Only plain digits of a bounded length are a number."""
    assert [number(text) for text in ("7", "007", "")] == [7, 7, ""]
    assert [number(text) for text in ("-1", "1.5", "²", "٣")] == ["-1", "1.5", "²", "٣"]
    assert number("9" * 5000) == "9" * 5000


def test_control_characters_are_mistakes() -> None:
    """A value that our file could not have is refused at its place in the other."""
    draft = Draft()
    draft.set(("a",), "b\x0bc", Mark(2, 3))
    draft.set(("d",), ["e", "\x7f"], Mark(4, 5))
    draft.set(("f",), ["plain", 7], Mark(6, 1))
    assert [problem.mark for problem in draft.problems] == [Mark(2, 3), Mark(4, 5)]


def test_what_is_said_is_one_line() -> None:
    """Text of the other file never breaks a line of ours, and is no escape of a terminal."""
    draft = Draft()
    draft.note(Mark(1, 1), "a\u2028b; c\x1b[1m")
    draft.mistake(("a",), Mark(1, 1), "a\nb; c")
    draft.set(("a",), 1, Mark(1, 1), "c\x85")
    said = [draft.notes[0].what, draft.notes[0].remedy, draft.problems[0].what]
    assert said == ["a\\u2028b", "c\\x1b[1m", "a\\nb"]
    assert draft.comments == {("a",): "c\\x85"}

"""Tests of ``paraglider.config.wording``: values and keys in messages."""

from __future__ import annotations

from paraglider.config.wording import did_you_mean, nearest, shown, ticked


def test_shown_value_stays_short() -> None:
    """A message repeats no more than the head of a long value."""
    assert len(shown("x" * 10_000)) < 80
    assert shown([1]) == "a list"


def test_a_key_is_on_one_line() -> None:
    """Whatever the file has; a long one is cut."""
    assert ticked("a\nb") == "`'a\\nb'`"
    assert len(ticked("x" * 10_000)) < 80


def test_what_was_meant() -> None:
    """The nearest of the known words, if one is near; a value that is no text has none."""
    known = ["drain", "maint", "ready"]
    assert nearest("drian", known) == "drain"
    assert nearest("zzz", known) is None
    assert did_you_mean("redy", iter(known)) == "did you mean ready? "
    assert did_you_mean("zzz", known) == did_you_mean(3, known) == did_you_mean("x", []) == ""

"""Tests of ``paraglider.core.parameter``: wrong values, and the classes of a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from paraglider.core.parameter import Parameter, found_in, one_of

NUMBER = Parameter("size", 8, 2, 10, "A size.", lambda n: "" if n % 2 == 0 else f"{n} is odd; even")
CHOICE = Parameter("way", "udp", 3, 3, "A way.", one_of("udp", "tcp"))
TEXT = Parameter("word", "ab", 1, 3, "A word.", lambda t: "" if t != "no" else "never; say yes")


@pytest.mark.parametrize("value", [2, 4, 10])
def test_a_number_that_is_right(value: int) -> None:
    """The bounds are within."""
    assert NUMBER.error(value) == ""


@pytest.mark.parametrize("value", ["a", "abc", "äöü"])
def test_a_text_that_is_right(value: str) -> None:
    """The bounds are characters."""
    assert TEXT.error(value) == ""


@pytest.mark.parametrize(
    ("parameter", "value", "said"),
    [
        (NUMBER, 1, "1 is out of range; write a whole number from 2 to 10"),
        (NUMBER, 11, "11 is out of range; write a whole number from 2 to 10"),
        (NUMBER, 3, "3 is odd; even"),
        (NUMBER, True, "True is no whole number; write a whole number from 2 to 10"),
        (NUMBER, 4.0, "4.0 is no whole number; write a whole number from 2 to 10"),
        (NUMBER, "4", "'4' is no whole number; write a whole number from 2 to 10"),
        (NUMBER, None, "None is no whole number; write a whole number from 2 to 10"),
        (TEXT, "", "the text has 0 characters; write from 1 to 3 characters"),
        (TEXT, "abcd", "the text has 4 characters; write from 1 to 3 characters"),
        (CHOICE, "tls", "'tls' is none of them; write one of: udp, tcp"),
        (CHOICE, "tcp", ""),
        (TEXT, 3, "3 is no text; put it in quotes"),
        (TEXT, "no", "never; say yes"),
    ],
)
def test_what_is_wrong(parameter: Parameter, value: object, said: str) -> None:
    """Type and bounds come before the parameter's own check, which sees none but right ones."""
    assert parameter.error(value) == said


def test_a_folder_defines_its_own_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted by module; without the base, private classes and imported classes."""
    folder = tmp_path / "found_in_this"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "base.py").write_text("class Base: pass\nclass Other: pass\n")
    head = "from found_in_this.base import Base, Other\n"
    (folder / "b.py").write_text(f"{head}class Second(Base): pass\nclass _Hidden(Base): pass\n")
    (folder / "a.py").write_text(
        f"{head}from found_in_this.b import Second\nclass First(Base): pass\n"
        "class No(Other): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        base = __import__("found_in_this.base").base.Base
        found = [each.__name__ for each in found_in("found_in_this", [str(folder)], base)]
    finally:
        for name in [name for name in sys.modules if name.startswith("found_in_this")]:
            del sys.modules[name]
    assert found == ["First", "Second"]

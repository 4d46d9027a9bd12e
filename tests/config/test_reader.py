"""Tests of ``paraglider.config.reader``: YAML as plain data, with places, within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraglider.config import composer, reader
from paraglider.config.diagnostics import Mark
from paraglider.config.reader import parse
from paraglider.config.steps import completed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1", {"a": 1}),
        ("a: 1_000_000", {"a": 1_000_000}),
        ("a: -3", {"a": -3}),
        ("a: 1.5", {"a": 1.5}),
        ("a: yes", {"a": True}),
        ("a: off", {"a": False}),
        ("a:", {"a": None}),
        ("a: ~", {"a": None}),
        ("a: '80'", {"a": "80"}),
        ("a: 8000-8099", {"a": "8000-8099"}),
        ("a: 2001-01-01", {"a": "2001-01-01"}),
        ("a: 22:80", {"a": "22:80"}),
        ("a: 10.0.0.1", {"a": "10.0.0.1"}),
        ("a: 2001:db8::11/64", {"a": "2001:db8::11/64"}),
        ("[fd00::1, '::1']", ["fd00::1", "::1"]),
        ("a: .inf", {"a": ".inf"}),
        ("a: 1:30.5", {"a": "1:30.5"}),
        ("on: 1", {"on": 1}),
        ("80: 1", {"80": 1}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: !!str 80", {"a": "80"}),
        ("a: 80\t# a comment", {"a": 80}),
        ("a: 80\t\nb: 1 \t \n", {"a": 80, "b": 1}),
        ("\t# a comment\na:\t80\n \t\nb: \t'x'\t# y", {"a": 80, "b": "x"}),
        ("a:\t[1,\t2\t]\nb: {c:\t3}\t#", {"a": [1, 2], "b": {"c": 3}}),
        ("a:\n- 1\t# one\n-\t# two\n  2\n", {"a": [1, 2]}),
        ("x: &p [1]\ny: *p", {"x": [1], "y": [1]}),
        ("x: &p {k: 1, l: 2}\ny: {<<: *p, k: 3}", {"x": {"k": 1, "l": 2}, "y": {"k": 3, "l": 2}}),
        ("x: &p {k: 1}\ny: {<<: [*p, {k: 2, m: 4}]}", {"x": {"k": 1}, "y": {"k": 1, "m": 4}}),
    ],
)
def test_plain_data(text: str, expected: Any) -> None:
    """YAML values have the intended types; quoted ones stay text."""
    parsed = parse(text)
    assert (parsed.data, parsed.problems) == (expected, [])


@pytest.mark.parametrize(
    ("text", "line", "column", "what", "remedy"),
    [
        ("", 1, 1, "the file is empty", "conf/paraglider.conf"),
        ("# only a comment\n", 1, 1, "the file is empty", "conf/paraglider.conf"),
        ("a: 1\n\tb: 2", 2, 1, "a tab", "write spaces"),
        ("a:\n\t- 1", 2, 1, "a tab", "write spaces"),
        ("a:\n  \tb: 2", 2, 3, "a tab", "write spaces"),
        ("a:\n-\tb: 2", 2, 2, "a tab", "write spaces"),
        ("a: one\ttwo", 1, 7, "a tab", "write spaces"),
        ("a: [one\ttwo]", 1, 8, "a tab", "write spaces"),
        ("a: %x", 1, 4, "a value cannot start with %", "in quotes"),
        ("a: @x", 1, 4, "a value cannot start with @", "in quotes"),
        ("a: b: c", 1, 5, "a second `key:`", "its own line"),
        ("a: 1\n  b: 2", 2, 4, "wrong indentation", "its own line"),
        ("a:\n  - 1\n b: 2", 3, 2, "indentation", "same column"),
        ("a: 1\nb\n", 3, 1, "no `key: value`", "a colon and a space"),
        ("a: 'x", 1, 4, "no end", "close the quote"),
        ('b: 1\na: "x\nc: 2', 2, 4, "no end", "close the quote"),
        ("a: [1", 1, 6, "a list in [ ] is not closed", "`]`"),
        ("a: {b: 1", 1, 9, "a section in { } is not closed", "`}`"),
        ("a: *x", 1, 4, "alias 'x' has no anchor", "`&`"),
        ("x: &a 1\ny: &a 2", 2, 4, "anchor 'a' is defined twice", "rename"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document", "`---`"),
        ("a: 1\nb: \x01", 2, 4, "character U+0001", "delete it"),
    ],
)
def test_text_that_does_not_parse(
    text: str, line: int, column: int, what: str, remedy: str
) -> None:
    """Invalid YAML is one problem, with its place and remedy."""
    parsed = parse(text)
    assert parsed.broken
    (problem,) = parsed.problems
    assert problem.mark == Mark(line, column)
    assert what in problem.what
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("text", "line", "column", "what", "remedy"),
    [
        ("a: 22:53", 1, 4, "22:53 is no decimal number", 'in quotes ("22:53")'),
        ("a: 0100", 1, 4, "0100 is no decimal number", "in decimal"),
        ("a: 0x50", 1, 4, "0x50 is no decimal number", "in decimal"),
        ("a: 1" + "0" * 5000, 1, 4, "is no decimal number", "in decimal"),
        (
            "a: 1\nb: 2\na: 3",
            3,
            1,
            "`a` appears twice in one section (first in line 1)",
            "keep one",
        ),
        ("a: {b: 1, b: 2}", 1, 11, "`b` appears twice", "keep one"),
        ("- fd00:10::", 1, 3, "'fd00:10::' ends in a colon", 'quotes: "fd00:10::"'),
        ("a: !foo 3", 1, 4, "the YAML tag '!foo'", "leave the tag out"),
        ("a: !!python/object:os.system x", 1, 4, "'!!python/object:os.system'", "leave the tag"),
        ("a: !!bool 3", 1, 4, "'!!bool'", "leave the tag out"),
        ("a: !!set {x}", 1, 4, "'!!set'", "leave the tag out"),
        ('a: "x\\ny"', 1, 4, "a control character", "on one line"),
        ('a: "x\\0"', 1, 4, "a control character", "on one line"),
        ("? [a]\n: 1", 1, 3, "a key is not plain text", "`key: value`"),
        ("a: {<<: 3}", 1, 5, "`<<` takes in something that is no section", "`<<: *anchor`"),
    ],
)
def test_text_that_means_something_else(
    text: str, line: int, column: int, what: str, remedy: str
) -> None:
    """Values that YAML reads unexpectedly are problems."""
    parsed = parse(text)
    assert not parsed.broken
    (problem,) = parsed.problems
    assert parsed.marks.of(problem) == Mark(line, column)
    assert what in problem.what
    assert remedy in problem.remedy


def test_marks_of_keys_values_and_texts() -> None:
    """Every key and value has its place, and every scalar the text it was written in."""
    marks = parse("a: 1\nlist:\n  - x: yes\n    y: 2\n").marks
    assert marks.values[("a",)] == Mark(1, 4)
    assert marks.keys[("list",)] == Mark(2, 1)
    assert marks.values[("list", 0)] == Mark(3, 5)
    assert marks.keys[("list", 0, "y")] == Mark(4, 5)
    assert marks.values[("list", 0, "y")] == Mark(4, 8)
    assert marks.texts[("list", 0, "x")] == "yes"


def test_nested_too_deep_ends_in_one_problem() -> None:
    """Ten thousand brackets cost neither the stack nor a traceback."""
    (problem,) = parse("a: " + "[" * 10_000).problems
    assert "nested more than" in problem.what


def test_alias_that_contains_itself_ends_in_one_problem() -> None:
    """A structure without end is refused."""
    parsed = parse("a: &a [*a]")
    assert parsed.broken
    assert "nested more than" in parsed.problems[0].what


def test_alias_bomb_ends_in_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small text whose aliases multiply to billions of values is refused by their number."""
    monkeypatch.setattr(composer, "MAX_NODES", 5000)
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    parsed = parse("\n".join(lines))
    assert parsed.broken
    assert "more than 5000 keys and values" in parsed.problems[0].what


def test_too_many_nodes_end_in_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text with more values than any configuration is refused while it is read."""
    monkeypatch.setattr(composer, "MAX_NODES", 100)
    assert "more than 100" in parse("- x\n" * 200).problems[0].what


@given(st.text())
def test_no_text_raises(text: str) -> None:
    """For any text, the result is a document."""
    parsed = parse(text)
    assert parsed.problems or not parsed.broken


WORDS = [
    *(
        "a",
        "b: ",
        ": ",
        "- ",
        "-",
        "\n",
        "\n  ",
        "\n    ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ",",
        "#",
        " # x",
    ),
    *(
        "'",
        '"',
        "fd00::1",
        "10.0.0.1",
        ":80",
        "0x1",
        "010",
        "1_0",
        "22:80",
        "true",
        "~",
        "null",
        "|",
    ),
    *("&a ", "*a", "<<: *a", "!t ", ">", "? ", "%", "---", "...", "@", "`", "1e3", ".inf", " "),
]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(WORDS), max_size=14).map("".join))
def test_both_parsers_agree(text: str) -> None:
    """If the fast parser gives a result, data and positions equal those of the slow one."""
    quick = completed(reader._quickly(text))
    if quick is not None:
        slow = reader._slowly(text)
        assert (quick.data, quick.problems) == (slow.data, slow.problems)
        assert quick.marks == slow.marks


def test_a_plain_file_goes_the_quick_way() -> None:
    """The examples too."""
    assert completed(reader._quickly("a: [1, {b: fd00::1}]\n")) is not None
    for path in (Path(__file__).parents[2] / "conf").glob("paraglider*.conf"):
        text = path.read_text(encoding="utf-8")
        assert completed(reader._quickly(text)) is not None or not text.isascii()

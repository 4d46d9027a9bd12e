"""docs/rfc.md: every requirement is there, each named test exists, each number is explained."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "rfc.md").read_text(encoding="utf-8")
METHODS = ["nat", "direct", "offload", "dsr", "tunnel", "proxy", "static"]
ANSWER = re.compile(r"(yes|yes but|no|kernel|dropped|–)(?: \[(\d+)\])?")
#: how many requirements each document has
REQUIREMENTS = {"RFC 4787": 14, "RFC 5382": 10, "RFC 5508": 11}


def tables() -> dict[str, list[list[str]]]:
    """The rows of each section, as cells."""
    found: dict[str, list[list[str]]] = {}
    title = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            title = line[3:]
        elif line.startswith("|") and not line.startswith(("| ---", "| | ")):
            found.setdefault(title, []).append([cell.strip() for cell in line.split("|")[1:-1]])
    return found


ROWS = [(title, row) for title, rows in tables().items() for row in rows]
each_row = pytest.mark.parametrize(
    ("title", "row"), ROWS, ids=[f"{title.partition(':')[2]} {row[0]}" for title, row in ROWS]
)


@cache
def source(file: str) -> tuple[str, frozenset[str]]:
    """The text of a test file, and the names of its tests."""
    text = (ROOT / file).read_text(encoding="utf-8")
    functions = (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    return text, frozenset(f.name for f in functions if f.name.startswith("test_"))


@each_row
def test_every_test_exists(title: str, row: list[str]) -> None:
    """Each row has at least one; of a table of rows, those of the requirement exist."""
    named = re.findall(r"`(tests/[^`]+)`", row[-1])
    assert named, f"{title}, {row[0]}: no test"
    for test in named:
        file, _, name = test.partition("::")
        function, bracket, label = name.partition("[")
        text, tests = source(file)
        assert function in tests, test
        if bracket:
            assert f'("{label.rstrip("]")}"' in text, test


@each_row
def test_every_method_answers(title: str, row: list[str]) -> None:
    """With a word that the page explains, and for all seven methods."""
    assert len(row) == len(METHODS) + 3, row
    for answer in row[2:-1]:
        assert ANSWER.fullmatch(answer), f"{title}, {row[0]}: {answer}"


def test_no_deviation_without_a_reason() -> None:
    """Each "no" has a number; each number has its reason, and each reason a row."""
    answers = [cell for _, row in ROWS for cell in row[2:-1]]
    matches = [match for cell in answers if (match := ANSWER.fullmatch(cell))]
    assert all(match[2] for match in matches if match[1] in ("no", "yes but"))
    told = re.findall(r"^\* \*\*(\d+)\.\*\* ", PAGE, re.MULTILINE)
    assert sorted(told) == sorted({match[2] for match in matches if match[2]})


@pytest.mark.parametrize("document", REQUIREMENTS)
def test_no_requirement_is_missing(document: str) -> None:
    """REQ-1 to the last, each once."""
    (rows,) = (rows for title, rows in tables().items() if document in title)
    assert [row[0] for row in rows] == [f"REQ-{n + 1}" for n in range(REQUIREMENTS[document])]


def test_every_row_of_the_scripts_is_in_the_page() -> None:
    """The scripts of tests/core/test_rfc.py are named by their requirement."""
    text, _ = source("tests/core/test_rfc.py")
    labels = set(re.findall(r'^    \("(\d{4} [^"]+)"', text, re.MULTILINE))
    assert len(labels) >= 10
    for label in labels:
        assert f"[{label}]" in PAGE, label

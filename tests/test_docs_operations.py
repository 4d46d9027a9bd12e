"""docs/operations.md and the other pages explain the daemon's messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = re.sub(r"\s+", " ", "\n".join(p.read_text() for p in (ROOT / "docs").glob("*.md")))
#: shorter pieces of a message say nothing
SHORTEST = 4


def pieces(node: ast.expr) -> list[str]:
    """The constant parts of a message."""
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return [text for t in texts if len(text := t.strip(" :;,")) >= SHORTEST]


def calls(names: frozenset[str]) -> Iterator[tuple[str, ast.Call]]:
    """The calls of functions and methods of these names in the package, each with its place."""
    for path in sorted((ROOT / "paraglider").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else ""
                name = function.id if isinstance(function, ast.Name) else name
                if name in names:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


MESSAGES = [
    pytest.param(found, id=place)
    for place, call in calls(frozenset({"warning", "error"}))
    if call.args and (found := pieces(call.args[0]))
]
CONDITIONS = [
    pytest.param(re.split("[;:]", found[0])[0].strip(" `"), id=place)
    for place, call in calls(frozenset({"Condition"}))
    if len(call.args) == 2 and (found := pieces(call.args[1]))
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_warning_of_the_log_is_explained(message: list[str]) -> None:
    """Every warning and error of the log, by the constant parts of its message."""
    assert [piece for piece in message if piece not in PAGES] == []


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_is_explained(condition: str) -> None:
    """Every condition of `paraglider health` whose text stands in one place, by how it begins."""
    assert condition in PAGES

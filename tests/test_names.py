"""Names of classes: one name, one class."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "paraglider"


def test_class_names_are_unique_in_the_package() -> None:
    """No two modules define a class of the same name, protocols and private classes included."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(place)
    assert len(found) > 100  # the package was read
    assert {name: sorted(places) for name, places in found.items() if len(places) > 1} == {}

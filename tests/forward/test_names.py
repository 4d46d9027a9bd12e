"""Only a method's own folder and the registry use the name of a forwarding method."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import paraglider
from paraglider.forward import registry

ROOT = Path(paraglider.__file__).parent
NAMES = {method.name for method in registry.methods()}

#: folders that may name methods: the methods' own; importers, which map other balancers' words to
#: ours; the lab, which chooses what to show
OWN = {f"forward/{name}/" for name in (*NAMES, "static")}
CHOOSING = {"config/importers/", "lab/", "cli/lab.py"}


def compared(tree: ast.AST) -> Iterator[int]:
    """The lines that compare, look up or choose by the name of a method: a constant equal to a name
    except as a value of its own, or ``forward`` compared with anything but another service's.
    """
    assigned = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.AnnAssign)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in NAMES and id(node) not in assigned:
            yield node.lineno
        elif isinstance(node, ast.Compare):
            sides = [_asks_forward(side) for side in (node.left, *node.comparators)]
            if any(sides) and not all(sides):
                yield node.lineno


def _asks_forward(side: ast.AST) -> bool:
    parts = side.elts if isinstance(side, ast.Tuple) else [side]
    return any(isinstance(part, ast.Attribute) and part.attr == "forward" for part in parts)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('service.forward == "nat"', True),
        ('service.forward in ("a", "b")', True),
        ("service.forward not in chosen", True),
        ('{"dsr": 1}[service.forward]', True),
        ('make_services(config, ("proxy",))', True),
        ('match service.forward:\n    case "offload": pass', True),
        ("(was.forward, 1) != (now.forward, 2)", False),
        ("key in table.forward[flow.protocol]", False),
        ('kind = "proxy"', False),
        ("service.method.queued", False),
    ],
)
def test_what_counts_as_a_comparison(line: str, found: bool) -> None:
    """The test below can fail."""
    assert bool(list(compared(ast.parse(line)))) == found


def test_no_code_compares_the_name_of_a_method() -> None:
    """Other code uses ``service.method``."""
    wrong = []
    for file in sorted(ROOT.rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if not name.startswith(tuple(OWN | CHOOSING)):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            wrong += [f"{name}:{line}" for line in compared(tree)]
    assert wrong == []

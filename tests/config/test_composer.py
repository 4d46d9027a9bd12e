"""Tests of ``paraglider.config.composer``: a large file is composed in pieces of a bounded size."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import yaml

from paraglider.config import composer, reader
from paraglider.config.reader import parsing
from paraglider.config.steps import completed

BACKEND = "  - {address: 10.0.0.1, weight: 3}\n"


def services(count: int, backends: int = 3) -> str:
    """A file in block style with so many services."""
    head = "services:\n"
    one = "- name: s\n  vip: 192.0.2.1\n  protocol: tcp\n  ports: 80\n  backends:\n"
    return head + (one + BACKEND * backends) * count


def pieces(text: str) -> list[int]:
    """The nodes that each step composes, the last included."""
    quick = composer._Quick(text)
    at = [0]
    at.extend(quick.nodes for _ in quick.composing())
    at.append(quick.nodes)
    return [after - before for before, after in pairwise(at)]


@pytest.mark.parametrize(
    "text",
    [
        services(500),
        services(1, 5000),
        "services: [" + "{name: s, backends: [10.0.0.1, 10.0.0.2]}, " * 2000 + "]\n",
        "exempt:\n" + "- 192.0.2.1\n" * 9000,
    ],
    ids=["services", "backends", "flow style", "a list"],
)
def test_no_piece_is_large(text: str) -> None:
    """Whatever there is much of: services, the backends of one, items of another list."""
    found = pieces(text)
    assert len(found) > 5
    assert max(found) < composer.PIECE + 20


def shape(node: yaml.Node) -> Any:
    """Tags, values and places of a tree."""
    value: Any = node.value
    if isinstance(node, yaml.MappingNode):
        value = [(shape(key), shape(each)) for key, each in node.value]
    elif isinstance(node, yaml.SequenceNode):
        value = [shape(each) for each in node.value]
    places = [(m.line, m.column) for m in (node.start_mark, node.end_mark)]
    return type(node), node.tag, value, places


@pytest.mark.parametrize(
    "text",
    [
        services(30),
        "a: &x {b: [1, 2]}\nc: *x\nd: [*x, &y [3]]\ne: {<<: *x, f: *y}\n",
        "a: !!map {b: ! [1]}\n? [k]\n: v\n",
        "- [[[[[[1]]]]]]\n",
        "a\n",
    ],
)
def test_the_nodes_are_those_of_the_whole(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Composed by PyYAML at once, the tree is the same, with its places."""
    monkeypatch.setattr(composer, "PIECE", 1)
    found = completed(composer.quickly_composing(text))
    assert found is not None
    assert shape(found) == shape(composer._Quick(text).get_single_node())


@pytest.mark.parametrize("text", [services(500), services(1, 5000)], ids=["services", "backends"])
def test_the_data_is_built_in_pieces_too(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader has the steps of the nodes, and then builds some of the data in each step."""
    built, whole = [0], reader._Builder.build

    def counting(builder: Any, node: yaml.Node, path: Any) -> Any:
        built[-1] += 1
        return whole(builder, node, path)

    monkeypatch.setattr(reader._Builder, "build", counting)
    built.extend(0 for _ in parsing(text))
    assert sum(count > 0 for count in built) > 5
    assert max(built) < composer.PIECE + 20


def test_aliases_do_not_multiply_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections that contain sections many times are bounded before their data is built."""
    monkeypatch.setattr(composer, "MAX_NODES", 500)
    text = "a: &a {k: {l: m}}\n"
    for name, inner in (("b", "a"), ("c", "b"), ("d", "c")):
        keys = ", ".join(f"k{number}: *{inner}" for number in range(30))
        text += f"{name}: &{name} {{{keys}}}\n"
    document = completed(parsing(text))
    assert document.broken
    assert "more than 500 keys and values" in document.problems[0].what

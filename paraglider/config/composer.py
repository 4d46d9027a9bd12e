"""Composes YAML text to a tree of nodes, in steps, within bounds.

Lives here: ``quickly_composing``, by libyaml; ``Bounded``, ``check_bounds``, ``TooLargeError``;
``mark_of``.
Rules: no text exhausts the process: size and depth of the tree are bounded. No I/O.
"""

from __future__ import annotations

from typing import Any, Final

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from paraglider.config.diagnostics import Mark
from paraglider.config.steps import Steps

MAX_NODES: Final = 250_000  # after aliases are followed; a backend with three keys is seven nodes
MAX_DEPTH: Final = 32  # the format needs six
#: nodes that are composed before the next step, some milliseconds; a step may exceed it by one
#: key and its value, or one item of a list, below ``STEPPED``
PIECE: Final = 1000
#: the depth down to which a tree is composed in steps: that of a service's backends
STEPPED: Final = 5

_CParser: Any = yaml.CSafeLoader.__mro__[1] if yaml.__with_libyaml__ else object
#: whether libyaml is there
HAS_QUICK: Final[bool] = yaml.__with_libyaml__
#: what becomes of an event that begins a container
_CONTAINERS: Final[dict[type, Any]] = {
    yaml.MappingStartEvent: yaml.MappingNode,
    yaml.SequenceStartEvent: yaml.SequenceNode,
}


class TooLargeError(Exception):
    """The text is deeper or larger than any configuration; has the place of the limit."""

    def __init__(self, mark: Mark, what: str) -> None:
        super().__init__(what)
        self.mark = mark
        self.what = what


class Bounded(Composer):
    """PyYAML's composer of nodes with a bound on their number and depth."""

    _depth = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """See ``Composer``; raises ``TooLargeError``."""
        self._begin()
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _begin(self) -> None:
        self._depth += 1
        self.nodes += 1
        mark = self.peek_event().start_mark  # type: ignore[attr-defined]
        check_bounds(self._depth, self.nodes, mark)


class _Quick(Bounded, _CParser, Resolver):  # type: ignore[misc]  # it has no types
    """Libyaml's parser, and PyYAML's nodes."""

    def __init__(self, text: str) -> None:
        _CParser.__init__(self, text)
        Composer.__init__(self)
        Resolver.__init__(self)
        self._piece = 0

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if not node.value and not node.style:
            raise yaml.YAMLError("where nothing stands the two do not agree on the place")
        return node

    def composing(self) -> Steps[yaml.Node | None]:
        """As ``get_single_node``, in steps."""
        self.get_event()  # the stream begins
        if self.check_event(yaml.StreamEndEvent):
            return None
        self.get_event()  # the document begins
        root = yield from self._composing(None, None)
        self.get_event()
        if not self.check_event(yaml.StreamEndEvent):
            raise yaml.YAMLError("a second document starts")
        return root

    def _composing(self, parent: yaml.Node | None, index: Any) -> Steps[yaml.Node | None]:
        """As ``compose_node``; here are containers above ``STEPPED`` without an anchor."""
        event = self.peek_event()
        kind = _CONTAINERS.get(type(event))
        if kind is None or event.anchor is not None or self._depth >= STEPPED:
            return self.compose_node(parent, index)
        self._begin()
        event, tag = self.get_event(), event.tag
        if tag is None or tag == "!":
            tag = self.resolve(kind, None, event.implicit)  # type: ignore[no-untyped-call]
        node = kind(tag, [], event.start_mark, None, flow_style=event.flow_style)
        mapping = kind is yaml.MappingNode
        while not self.check_event(yaml.MappingEndEvent if mapping else yaml.SequenceEndEvent):
            if self.nodes - self._piece >= PIECE:
                self._piece = self.nodes
                yield
            if mapping:
                key = self.compose_node(node, None)
                node.value.append((key, (yield from self._composing(node, key))))
            else:
                node.value.append((yield from self._composing(node, len(node.value))))
        node.end_mark = self.get_event().end_mark
        self._depth -= 1
        return node  # type: ignore[no-any-return]


def quickly_composing(text: str) -> Steps[yaml.Node | None]:
    """The nodes of ``text``, None if it is empty; raises ``YAMLError`` and ``TooLargeError``."""
    return (yield from _Quick(text).composing())


def check_bounds(depth: int, nodes: int, mark: Any) -> None:
    """Raise ``TooLargeError`` for a tree with so many ``nodes`` that is so deep at ``mark``."""
    if depth > MAX_DEPTH:
        raise TooLargeError(mark_of(mark), f"sections are nested more than {MAX_DEPTH} deep")
    if nodes > MAX_NODES:
        raise TooLargeError(mark_of(mark), f"the file has more than {MAX_NODES} keys and values")


def mark_of(mark: Any) -> Mark:
    """The place that PyYAML calls ``mark``."""
    return Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)

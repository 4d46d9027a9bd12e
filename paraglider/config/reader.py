"""Reads YAML text into plain data, with the place of every key and value.

Lives here: ``parse``. PyYAML composes the tree of nodes (it never constructs objects); this module
converts nodes to dict, list, str, int, float, bool and None.
Rules: surprising YAML numbers (``22:80`` as base 60, ``0100`` as octal) are errors. Size, depth and
aliases are bounded, so that no text exhausts the process. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from paraglider.config.composer import (
    HAS_QUICK,
    PIECE,
    STEPPED,
    Bounded,
    TooLargeError,
    check_bounds,
    mark_of,
    quickly_composing,
)
from paraglider.config.diagnostics import Mark, Marks, Path, Problem
from paraglider.config.steps import Steps, completed
from paraglider.config.wording import shown, ticked

MAX_BYTES = 10_000_000

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {_TAG + name for name in ("str", "timestamp", "value", "merge")}
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]{0,24})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_UNUSUAL = re.compile(r"[^\n -~]|\?|[|>][-+0-9]*#")  # where libyaml reads another text than PyYAML

_ENDPOINT = re.compile(r"(?<![\"'])\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]+\]:[0-9]{1,5}")  # [2001:db8::1]:80

_BREAKS = "\0\r\n\x85\u2028\u2029"  # the end of a line, or of the text
_ENDS = f"#{_BREAKS}"

# PyYAML's messages for common slips → our message and remedy.
_YAML_SLIPS = (
    (r"found character '\\t'", "a tab stands where YAML allows no tab", "write spaces there"),
    (
        r"found character '(.)' that cannot start",
        r"a value cannot start with {}",
        "put the value in quotes",
    ),
    (
        "mapping values are not allowed here",
        "a second `key:` on one line, or wrong indentation",
        "give each key its own line, and quote a text that contains `: `",
    ),
    (
        "expected <block end>",
        "the indentation does not match the lines above",
        "start the keys of one section, and the dashes of one list, in the same column",
    ),
    (
        "could not find expected ':'",
        "this is no `key: value`",
        "write a colon and a space after the key",
    ),
    ("found unexpected end of stream", "a quoted text has no end", "close the quote"),
    (r"expected ',' or '\]'", "a list in [ ] is not closed", "write a comma or `]` here"),
    (r"expected ',' or '\}'", "a section in {{ }} is not closed", "write a comma or `}` here"),
    (
        r"found undefined alias (.*)",
        "alias {} has no anchor",
        "define it with `&` above, or quote a text that starts with `*`",
    ),
    (r"found duplicate anchor (.*); first", "anchor {} is defined twice", "rename one of the two"),
    (
        "but found another document",
        "a second document starts here",
        "keep one, and delete the line `---`",
    ),
)


@dataclass(slots=True)
class Document:
    """One YAML document: its data, the places of its keys and values, and its problems.

    ``broken`` is true when the text could not be read; ``data`` is then meaningless.
    """

    data: Any = None
    marks: Marks = field(default_factory=Marks)
    problems: list[Problem] = field(default_factory=list)
    broken: bool = False


class _Composer(Bounded, yaml.SafeLoader):
    """PyYAML's loader as far as the nodes, with tabs where YAML 1.2 has them separate tokens
    (section 6.2).
    """

    def __init__(self, text: str) -> None:
        yaml.SafeLoader.__init__(self, text)
        self._dash = self._plain = -1  # where the last of them ended

    def fetch_block_entry(self) -> None:
        super().fetch_block_entry()
        self._dash = self.index

    def fetch_plain(self) -> None:
        super().fetch_plain()
        self._plain = self.index

    def scan_to_next_token(self) -> None:
        """Skip white space, line breaks and comments. A tab that would indent, or that is part of a
        text without quotes, is left, where PyYAML then finds a mistake.
        """
        if self.index == 0 and self.peek() == "\ufeff":
            self.forward()
        indents = self.column == 0 or self.index == self._dash
        while True:
            length = 0
            while self.peek(length) in " \t":
                length += 1
            follows = self.peek(length)
            if "\t" in self.prefix(length) and follows not in _ENDS:
                within = self.index == self._plain and follows not in ":,]}"
                if within or (indents and not self.flow_level):
                    self.forward(self.prefix(length).index("\t"))
                    return
            self.forward(length)
            if self.peek() == "#":
                while self.peek() not in _BREAKS:
                    self.forward()
            if not self.scan_line_break():  # type: ignore[no-untyped-call]
                return
            indents = True
            if not self.flow_level:
                self.allow_simple_key = True


def _quickly(text: str) -> Steps[Document | None]:
    """Compose ``text`` with libyaml, in a tenth of the time; None if libyaml is missing or reports
    an error, because ``_Composer`` has better messages and places.

    The two differ in tabs, other line ends, non-ASCII characters, question marks in flow lists and
    sections, and comments directly after `|`: such texts are read by ``_Composer``.
    """
    if not HAS_QUICK or not text.isascii() or _UNUSUAL.search(text):
        return None

    document = Document()
    try:
        root = yield from quickly_composing(text)
        if root is None:
            return None
        yield
        builder = _Builder(document)
        yield from builder.build_ahead(root, ())
        document.data = builder.build(root, ())
    except (yaml.YAMLError, TooLargeError):
        return None
    return None if document.problems else document


def parse(text: str) -> Document:
    """One YAML document as plain data; never raises: every mistake is in ``problems``."""
    return completed(parsing(text))


def parsing(text: str) -> Steps[Document]:
    """As ``parse``, in steps: some for the nodes (``composer.PIECE``), as many for the data. A text
    that libyaml does not read is one long step.
    """
    return (yield from _quickly(text)) or _slowly(text)


def _slowly(text: str) -> Document:
    document = Document()
    try:
        loader = _Composer(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        if root is None:
            raise TooLargeError(Mark(1, 1), "the file is empty")
        document.data = _Builder(document).build(root, ())
    except yaml.MarkedYAMLError as error:
        document.broken = True
        document.problems = [_reworded(error, text)]
    except yaml.reader.ReaderError as error:
        document.broken = True
        document.problems = [_unprintable(text, error)]
    except TooLargeError as error:
        document.broken = True
        remedy = "start from the example conf/paraglider.conf"
        document.problems = [Problem((), error.what, remedy, mark=error.mark)]
    return document


def _reworded(error: yaml.MarkedYAMLError, text: str) -> Problem:
    raw = f"{error.context or ''}: {error.problem or ''}".strip(": ")
    mark = mark_of(error.problem_mark or error.context_mark)
    # PyYAML reports a quote without end at the end of the file; its start is more helpful.
    if "unexpected end of stream" in raw and error.context_mark is not None:
        mark = mark_of(error.context_mark)
    endpoint = _ENDPOINT.search(text.split("\n")[mark.line - 1])
    if endpoint is not None:
        mark = Mark(mark.line, endpoint.start() + 1)
        return Problem((), *_unquoted(endpoint[0]), mark=mark)
    for pattern, what, remedy in _YAML_SLIPS:
        match = re.search(pattern, raw)
        if match:
            return Problem((), what.format(*match.groups()), remedy, mark=mark)
    remedy = "check the indentation, quotes and brackets here"
    return Problem((), f"the YAML does not parse ({raw})", remedy, mark=mark)


def _unquoted(endpoint: str) -> tuple[str, str]:
    """What is wrong with an ``endpoint`` in brackets without quotes, and the remedy."""
    what = f"YAML reads {shown(endpoint)} as a list, since it starts with a bracket"
    return what, f'put it in quotes: "{endpoint}"'


def _endpoint_in(key: yaml.Node, value: yaml.Node) -> str:
    """``[ADDRESS]:PORT`` without quotes in a flow list, which YAML reads as a list and its value;
    empty for anything else.
    """
    if not isinstance(key, yaml.SequenceNode) or len(key.value) != 1:
        return ""
    text = f"[{key.value[0].value}]:{value.value}"
    return text if _ENDPOINT.fullmatch(text) else ""


def _unprintable(text: str, error: yaml.reader.ReaderError) -> Problem:
    position = error.position if isinstance(error.position, int) else 0
    before = text[:position]
    mark = Mark(before.count("\n") + 1, position - before.rfind("\n"))
    character = error.character
    code = character if isinstance(character, int) else ord(str(character)[0])
    what = f"character U+{code:04X} is not allowed in YAML"
    return Problem((), what, "delete it", mark=mark)


class _Builder:
    """Converts nodes to data; one instance per document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._marks = document.marks
        self._nodes = self._seen = self._piece = 0
        self._ahead: dict[Path, list[Any]] = {}

    def build_ahead(self, node: yaml.Node, path: Path) -> Steps[None]:
        """Build the lists below ``node`` in steps, for ``build``; their problems may be in another
        order.
        """
        self._seen += 1
        check_bounds(len(path), self._seen, node.start_mark)
        if len(path) >= STEPPED:
            return
        if isinstance(node, yaml.MappingNode):
            for key, value in self._entries(node, path):
                if not isinstance(value, yaml.ScalarNode):
                    yield from self.build_ahead(value, (*path, str(key.value)))
        elif isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            data = []
            for index, item in enumerate(node.value):
                if self._nodes - self._piece >= PIECE:
                    self._piece = self._nodes
                    yield
                if not isinstance(item, yaml.ScalarNode):
                    yield from self.build_ahead(item, (*path, index))
                data.append(self.build(item, (*path, index)))
            self._ahead[path] = data

    def build(self, node: yaml.Node, path: Path) -> Any:
        # Aliases share nodes, so the tree can be larger than its text, or even without end.
        self._nodes += 1
        check_bounds(len(path), self._nodes, node.start_mark)
        self._marks.values[path] = mark_of(node.start_mark)
        if path in self._ahead:
            return self._ahead.pop(path)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            self._marks.texts[path] = node.value
            return self._scalar(node, path)
        return self._unknown_tag(node, path)

    def _problem(self, path: Path, what: str, remedy: str, mark: Mark | None = None) -> None:
        self._document.problems.append(Problem(path, what, remedy, mark=mark))

    def _unknown_tag(self, node: yaml.Node, path: Path) -> None:
        tag = node.tag.replace(_TAG, "!!")
        self._problem(path, f"the YAML tag {shown(tag)} means nothing here", "leave the tag out")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, Mark] = {}
        for key, value in self._entries(node, path):
            mark = mark_of(key.start_mark)
            if endpoint := _endpoint_in(key, value):
                self._problem(path, *_unquoted(endpoint), mark)
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._problem((*path, "?"), "a key is not plain text", "write `key: value`", mark)
                continue
            name = str(key.value)
            if name in first:
                what = f"{ticked(name)} appears twice in one section"
                what += f" (first in line {first[name].line})"
                self._problem((*path, name), what, "keep one of the two", mark)
                continue
            first[name] = mark
            self._marks.keys[(*path, name)] = mark
            data[name] = self.build(value, (*path, name))
            if name.endswith(":") and not key.style and data[name] is None:
                what = f"{shown(name + ':')} ends in a colon, so YAML reads it as a key"
                self._problem(path, what, f'put it in quotes: "{name}:"', mark)
        for key, value in self._merged(node, path):
            name = str(key.value)
            if name not in data:
                self._marks.keys[(*path, name)] = mark_of(key.start_mark)
                data[name] = self.build(value, (*path, name))
        return data

    @staticmethod
    def _is_merge(key: yaml.Node) -> bool:
        return isinstance(key, yaml.ScalarNode) and key.tag == _TAG + "merge"

    def _entries(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        return ((key, value) for key, value in node.value if not self._is_merge(key))

    def _merged(
        self, node: yaml.MappingNode, path: Path
    ) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        """The entries that ``<<: *anchor`` brings in, the section's own not among them."""
        for key, value in node.value:
            if not self._is_merge(key):
                continue
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in sources:
                if not isinstance(source, yaml.MappingNode):
                    what = "`<<` takes in something that is no section"
                    place = mark_of(key.start_mark)
                    self._problem((*path, "<<"), what, "write `<<: *anchor`", place)
                    continue
                for inner, inner_value in source.value:
                    if isinstance(inner, yaml.ScalarNode) and not self._is_merge(inner):
                        yield inner, inner_value

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if node.tag in _TEXT_TAGS:
            if _CONTROL.search(text):
                what = f"{shown(text)} contains a control character"
                self._problem(path, what, "write the text on one line, without escapes")
            return text
        if node.tag == _TAG + "null":
            return None
        if node.tag == _TAG + "bool" and text.lower() in yaml.SafeLoader.bool_values:
            return yaml.SafeLoader.bool_values[text.lower()]
        if node.tag == _TAG + "float":
            return self._float(text)
        if node.tag == _TAG + "int":
            if _DECIMAL.fullmatch(text):
                return int(text.replace("_", ""))
            what = f"{shown(text)[1:-1]} is no decimal number, though YAML reads it as a number"
            remedy = f'write it in decimal, or in quotes ("{shown(text)[1:-1]}") if it is a text'
            self._problem(path, what, remedy)
            return None
        return self._unknown_tag(node, path)

    @staticmethod
    def _float(text: str) -> float | str:
        try:
            return float(text.replace("_", ""))
        except ValueError:
            return text  # base 60, .inf: no field takes them, and as text they show as written

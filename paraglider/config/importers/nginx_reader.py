"""Reads ``nginx.conf`` into statements.

Lives here: ``read``.
Rules: as nginx reads it: statements end with `;` or have a block, quotes only begin a word, a
relative include is looked up beside the main file. Blocks that do not balance at layer 4 (`http`,
`mail`) are read for their braces only. A mistake has its place, and ends the reading.
"""

from __future__ import annotations

import re
from typing import Final

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.blocks import Builder, Statement
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.includes import Includes, MissingIncludeError
from paraglider.config.wording import shown

#: blocks whose includes do not matter
OTHER_BLOCKS: Final = ("http", "mail", "events")
_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<comment>\#[^\n]*) | (?P<mark>[;{}])
      | "(?P<weak>(?:\\[\s\S]|[^"\\])*)" | '(?P<strong>(?:\\[\s\S]|[^'\\])*)'
      | (?P<word>(?:\\[\s\S]|\$\{[^}\s]{0,200}\}|[^\s;{}"'\\])
                 (?:\\[\s\S]|\$\{[^}\s]{0,200}\}|[^\s;{}\\])*)
      | (?P<bad>[\s\S])""",
    re.VERBOSE,
)
_BRACES = re.compile(r"[{}]")


def read(text: str, includes: Includes, draft: Draft) -> list[Statement]:
    """The statements of ``text`` and the files that it includes; mistakes are in ``draft``."""
    builder = Builder(draft)
    _NginxReading(text, (), builder, includes).run()
    builder.end()
    return [] if builder.broken else builder.statements


class _NginxReading:
    """One file, the last of ``within``."""

    def __init__(
        self, text: str, within: tuple[str, ...], builder: Builder, includes: Includes
    ) -> None:
        self._text = text
        self._within = within
        self._builder = builder
        self._includes = includes
        self._words: list[str] = []
        self._first = Mark(1, 1)

    def run(self) -> None:
        """Read the file."""
        position, line, begin = 0, 1, 0
        while position < len(self._text) and not self._builder.broken:
            match = _TOKEN.match(self._text, position)
            if match is None:
                return
            name = self._within[-1] if self._within else ""
            mark = Mark(line, position - begin + 1, name)
            end = match.end()
            if match.lastgroup == "mark":
                end = self._ended(match[0], mark, end)
            elif match.lastgroup == "bad":
                self._builder.mistake(mark, "a quote is not closed; close it")
            elif match.lastgroup not in ("space", "comment"):
                if not self._words:
                    self._first = mark
                quoted = match["weak"] if match["weak"] is not None else match["strong"]
                word = match["word"] if quoted is None else quoted
                self._words.append(re.sub(r"\\([\"'\\;{} ])", r"\1", word))
            passed = self._text[position:end]
            if "\n" in passed:
                line += passed.count("\n")
                begin = position + passed.rindex("\n") + 1
            position = end
        if self._words and not self._builder.broken:
            what = f"the statement {shown(' '.join(self._words))} has no end"
            self._builder.mistake(self._first, f"{what}; add `;`")

    def _ended(self, symbol: str, mark: Mark, end: int) -> int:
        """A statement ends with ``symbol``; returns where to read on."""
        words, self._words = self._words, []
        if symbol == "}":
            if words:
                what = f"the statement {shown(' '.join(words))} has no end"
                self._builder.mistake(self._first, f"{what}; add `;`")
            else:
                self._builder.close(mark)
        elif not words:
            if symbol == "{":
                self._builder.mistake(mark, "a `{` without a name before it; remove it, or add it")
        elif words[0].endswith("_by_lua_block") and symbol == "{":
            self._builder.add(Statement(self._first, words[0], tuple(words[1:])))
            return self._after_block(mark, end)
        elif words[0] == "include" and symbol == ";" and len(words) > 1:
            self._include(words[1])
        else:
            block: list[Statement] | None = [] if symbol == "{" else None
            self._builder.add(Statement(self._first, words[0], tuple(words[1:]), block))
        return end

    def _after_block(self, mark: Mark, position: int) -> int:
        """The place after the block that begins before ``position``, whose content is no words."""
        depth = 1
        for match in _BRACES.finditer(self._text, position):
            depth += 1 if match[0] == "{" else -1
            if depth == 0:
                return match.end()
        self._builder.mistake(mark, "this block is not closed; add the `}` that is missing")
        return len(self._text)

    def _include(self, pattern: str) -> None:
        stack = self._builder.stack
        if stack and stack[0].name in OTHER_BLOCKS:
            return
        try:
            found = self._includes.find(pattern, self._within, beside=False)
        except MissingIncludeError as error:
            self._builder.draft.note(self._first, str(error))
            return
        except ValueError as error:
            self._builder.mistake(self._first, str(error))
            return
        for each in found:
            depth = len(stack)
            _NginxReading(
                each.text, (*self._within, each.name), self._builder, self._includes
            ).run()
            self._builder.end(depth)
            if self._builder.broken or len(stack) < depth:
                return

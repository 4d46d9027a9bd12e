"""Reads ``keepalived.conf`` into statements.

Lives here: ``read``.
Rules: as keepalived.conf(5): comments from `#` or `!`, quoted words, parameters (`$NAME=VALUE`,
also of several lines), included files relative to the including one. Lines for one host (`@id`) and
repeated lines (`~SEQ`, `~LST`) are left out, with a note, since their condition is not in the file.
What parameters become is bounded.
"""

from __future__ import annotations

import re
from typing import Final

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.blocks import Builder, Statement
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.includes import Includes, MissingIncludeError
from paraglider.config.wording import shown

_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<comment>[#!].*) | (?P<open>\{) | (?P<close>\})
      | (?P<word>(?:"(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | \\. | \$\{[^}\s]{0,200}\}
                  | [^\s{}"'\\#!] )+)
      | (?P<bad>.)""",
    re.VERBOSE,
)
_PIECE = re.compile(r""""((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|(\\.|[^"'])""")
_INCLUDE = re.compile(r"\s*include[rmwba]?\s+(?P<files>[^\s#!].*?)\s*$")
_DEFINED = re.compile(r"\s*\$([A-Za-z_]\w*)=(.*)$", re.ASCII)
_USED = re.compile(r"\$\{([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)(?=\s|$)", re.ASCII)
_MOST_ROUNDS: Final = 20
_LONGEST: Final = 65_536
#: most characters that parameters become, in all lines together
_MOST: Final = 5_000_000


def read(text: str, includes: Includes, draft: Draft) -> list[Statement]:
    """The statements of ``text`` and the files that it includes; mistakes are in ``draft``."""
    reading = _KeepalivedReading(includes, draft)
    reading.lines(text, ())
    reading.builder.end()
    return [] if reading.builder.broken else reading.builder.statements


class _KeepalivedReading:
    def __init__(self, includes: Includes, draft: Draft) -> None:
        self._includes = includes
        self._draft = draft
        self.builder = Builder(draft)
        self._values: dict[str, str] = {}
        self._made = 0

    def lines(self, text: str, within: tuple[str, ...]) -> None:
        """Read ``text``, of the last of the files ``within``."""
        name = within[-1] if within else ""
        lines = enumerate(text.split("\n"), 1)
        for index, line in lines:
            mark = Mark(index, len(line) - len(line.lstrip()) + 1, name)
            if self.builder.broken:
                return
            include = _INCLUDE.match(line)
            if include is not None:
                self._include(include["files"].strip("\"'"), mark, within)
                continue
            defined = _DEFINED.match(line)
            if defined is None:
                self._line(line, mark)
                continue
            value = defined[2].rstrip()
            while value.endswith("\\"):
                value = value[:-1].rstrip() + "\n" + next(lines, (0, ""))[1].rstrip()
            self._values[defined[1]] = value

    def _include(self, pattern: str, mark: Mark, within: tuple[str, ...]) -> None:
        try:
            found = self._includes.find(pattern, within, beside=True)
        except MissingIncludeError as error:
            self._draft.note(mark, str(error))
            return
        except ValueError as error:
            self.builder.mistake(mark, str(error))
            return
        for each in found:
            self.lines(each.text, (*within, each.name))

    def _line(self, line: str, mark: Mark) -> None:
        """Read one line, after its parameters are replaced: it may be several then."""
        if "$" in line and self._values:
            replaced = self._replaced(line)
            self._made += len(replaced) if replaced is not None else 0
            if replaced is None or self._made > _MOST:
                what = "the parameters of this line become too long a text"
                self.builder.mistake(mark, f"{what}; write the lines out")
                return
            if replaced != line and "\n" in replaced:
                for each in replaced.split("\n"):
                    defined = _DEFINED.match(each)
                    if defined is not None:
                        self._values[defined[1]] = defined[2].rstrip()
                    else:
                        self._line(each, mark)
                return
            line = replaced
        start = line.lstrip()[:1]
        if start == "@":
            what = f"{shown(line.split()[0])} makes this line one for some hosts only"
            self._draft.note(mark, f"{what}; remove the word if this host is one, and import again")
        elif start == "~":
            what = "a line that is repeated by ~SEQ or ~LST is left out"
            self._draft.note(mark, f"{what}; write the lines out, and import again")
        else:
            self._words(line, mark)

    def _replaced(self, line: str) -> str | None:
        """``line`` with its parameters replaced; None if that has no end."""
        for _ in range(_MOST_ROUNDS):
            after = _USED.sub(lambda match: self._values.get(match[1] or match[2], match[0]), line)
            if after == line or "\n" in after:
                return after if len(after) <= _LONGEST else None
            if len(after) > _LONGEST:
                return None
            line = after
        return None

    def _words(self, line: str, mark: Mark) -> None:
        words: list[str] = []
        for match in _TOKEN.finditer(line):
            kind, piece = match.lastgroup, match[0]
            here = mark._replace(column=match.start() + 1)
            if kind == "word":
                words.append(_plain(piece))
            elif kind == "open":
                if not words:
                    what = "a `{` without a name before it"
                    self.builder.mistake(here, f"{what}; write it on the line of the name")
                    return
                self.builder.add(Statement(mark, words[0], tuple(words[1:]), []))
                words = []
            elif kind == "close":
                if words:
                    self.builder.add(Statement(mark, words[0], tuple(words[1:])))
                    words = []
                self.builder.close(here)
            elif kind == "bad":
                self.builder.mistake(here, "a quote is not closed in this line; close it")
                return
        if words:
            self.builder.add(Statement(mark, words[0], tuple(words[1:])))


def _plain(word: str) -> str:
    """``word`` without its quotes and backslashes."""
    if not any(letter in word for letter in "\"'\\"):
        return word
    pieces = (match[1] or match[2] or match[3] or "" for match in _PIECE.finditer(word))
    return re.sub(r"\\(.)", r"\1", "".join(pieces))

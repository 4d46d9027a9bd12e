"""Reads ``haproxy.cfg`` into sections of lines.

Lives here: ``HaproxyLine``, ``HaproxySection``, ``read``.
Rules: as HAProxy's configuration manual, sections 2.1 to 2.4: words, quotes, escapes, environment
variables within double quotes, conditional blocks. Variables that the file sets or gives a default
are replaced; others stay as they are written. A condition that is no number is taken as true, with
a note, since it depends on the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.draft import Draft
from paraglider.config.wording import shown

#: keywords that begin a section
SECTIONS: Final = (
    *("global", "defaults", "frontend", "listen", "backend", "peers", "resolvers", "mailers"),
    *("userlist", "program", "cache", "ring", "http-errors", "log-forward", "log-profile"),
    *("fcgi-app", "crt-store", "traces", "acme", "ruleset"),
)
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\f\v]+) | (?P<comment>\#.*) | '(?P<strong>[^']*)'
      | "(?P<weak>(?:\\.|[^"\\])*)" | \\x(?P<hex>[0-9A-Fa-f]{2}) | \\(?P<escaped>.)
      | (?P<plain>[^\s\\#'"]+) | (?P<bad>.)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\x([0-9A-Fa-f]{2})|\\(.)|\$(?:\{([^}]*)\}|([A-Za-z_]\w*))", re.ASCII)
_VARIABLE = re.compile(r"([A-Za-z_]\w*)(\[\*\])?(?:-(.*))?", re.ASCII | re.DOTALL)
_MOST_LINES: Final = 10_000  # most lines of a section, and most sections
_PRINTED: Final = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class HaproxyLine:
    """The words of a line."""

    mark: Mark
    words: tuple[str, ...]

    @property
    def keyword(self) -> str:
        """Its first word."""
        return self.words[0]

    def word(self, index: int) -> str:
        """Its word at ``index``, or nothing."""
        return self.words[index] if len(self.words) > index else ""

    def __str__(self) -> str:
        return " ".join(self.words)


@dataclass(slots=True)
class HaproxySection:
    """A section with its lines, without the first."""

    mark: Mark
    kind: str
    words: tuple[str, ...]
    lines: list[HaproxyLine] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name, or nothing."""
        return self.words[0] if self.words else ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


def read(text: str, draft: Draft) -> list[HaproxySection]:
    """The sections of ``text``; mistakes are in ``draft``."""
    reading = _HaproxyReading(draft)
    sections: list[HaproxySection] = []
    for index, line in enumerate(text.split("\n"), 1):
        mark = Mark(index, len(line) - len(line.lstrip()) + 1)
        words = reading.words(line, mark)
        if not words or not reading.is_taken(words, mark):
            continue
        if words[0] in SECTIONS:
            sections.append(HaproxySection(mark, words[0], tuple(words[1:])))
        elif not sections:
            what = f"{shown(words[0])} is in no section"
            draft.mistake(("services",), mark, f"{what}; begin with `defaults` or `listen NAME`")
        else:
            sections[-1].lines.append(HaproxyLine(mark, tuple(words)))
            if len(sections) > _MOST_LINES or len(sections[-1].lines) > _MOST_LINES:
                what = f"there are more than {_MOST_LINES} sections, or lines of a section"
                draft.mistake(("services",), mark, f"{what}; import parts of the file")
                break
            if words[0] in ("setenv", "presetenv") and len(words) > 2:
                reading.values.setdefault(words[1], words[2])
        if draft.too_many_problems:
            break
    reading.end()
    return sections


class _HaproxyReading:
    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.values: dict[str, str] = {}
        self._open: list[tuple[Mark, bool, bool]] = []  # of each `.if`: place, taken, was taken

    def words(self, line: str, mark: Mark) -> list[str]:
        """The words of ``line``; none if it has a mistake."""
        words: list[str] = []
        ended = True
        for match in _TOKEN.finditer(line):
            kind = match.lastgroup
            if kind in ("space", "comment"):
                ended = True
                continue
            if kind == "bad":
                what = "a quote is not closed, or a backslash ends the line"
                here = Mark(mark.line, match.start() + 1)
                self._draft.mistake(("services",), here, f"{what}; complete it")
                return []
            pieces = list(self._pieces(match))
            if ended or not words:
                words.append("")
            words[-1] += pieces[0]
            words += pieces[1:]
            ended = False
        return words

    def _pieces(self, match: re.Match[str]) -> Iterator[str]:
        """The text of one token; of a list in a variable, `${NAME[*]}`, several."""
        if match["weak"] is not None:
            listed = re.fullmatch(r"\$\{([A-Za-z_]\w*)\[\*\]\}", match["weak"], re.ASCII)
            if listed is not None and listed[1] in self.values:
                yield from self.values[listed[1]].split() or [""]
            else:
                yield _ESCAPE.sub(self._unescaped, match["weak"])
        elif match["hex"] is not None:
            yield chr(int(match["hex"], 16))
        elif match["escaped"] is not None:
            yield _PRINTED.get(match["escaped"], match["escaped"])
        else:
            yield match["strong"] if match["strong"] is not None else match["plain"]

    def _unescaped(self, match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        if match[2]:
            return _PRINTED.get(match[2], match[2])
        variable = _VARIABLE.fullmatch(match[3] if match[3] is not None else match[4])
        if variable is None:
            return match[0]
        known = self.values.get(variable[1], variable[3])
        return match[0] if known is None else known

    def is_taken(self, words: list[str], mark: Mark) -> bool:
        """Whether a line is one of the configuration, and not left out by a condition."""
        keyword = words[0]
        if keyword == ".if":
            truth = self._truth(words, mark)
            self._open.append((mark, truth, truth))
        elif keyword in (".elif", ".else", ".endif"):
            if not self._open:
                what = f"`{keyword}` without `.if`"
                self._draft.mistake(("services",), mark, f"{what}; remove it, or add the `.if`")
                return False
            begin, _, was = self._open.pop()
            if keyword == ".else":
                self._open.append((begin, not was, True))
            elif keyword == ".elif":
                truth = not was and self._truth(words, mark)
                self._open.append((begin, truth, was or truth))
        elif not keyword.startswith("."):
            return all(taken for _, taken, _ in self._open)
        return False

    def _truth(self, words: list[str], mark: Mark) -> bool:
        condition = " ".join(words[1:])
        if condition.isascii() and condition.isdigit():
            return int(condition[:9]) != 0
        if condition:
            what = f"the condition {shown(condition)} is taken as true"
            self._draft.note(mark, f"{what}; delete the lines that are not for this host")
        return bool(condition)

    def end(self) -> None:
        """The file ends: no condition may be open."""
        for mark, _, _ in self._open[:1]:
            self._draft.mistake(("services",), mark, "this `.if` has no `.endif`; add it")

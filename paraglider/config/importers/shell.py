"""The commands of a shell script, or of lines pasted from a terminal.

Lives here: ``commands``, which yields each ``ShellCommand`` with its words and its place,
``is_unknown``, and ``TooManyCommandsError``.
Rules: nothing is executed. Quotes (within a line), comments, continued lines, `;`, `&&` and
redirections are those of a shell; variables with a plain value in the script are replaced by it,
and `for` over plain words is unrolled, with simple arithmetic. Any other variable, and what a
command would print, stays as it is written: the importer then says that it cannot be known.
Commands, turns of loops and values are bounded. Pure.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from paraglider.config.diagnostics import Mark

#: most commands of a script
MOST: Final = 100_000
# Most turns of all loops, most loops within each other, and the longest value of a variable.
_MOST_TURNS: Final = 10_000
_DEEPEST: Final = 4
_LONGEST: Final = 1000
# What a terminal shows before a command: `[root@lvs ~]# `, `user@host:~$ `, `$ `.
_PROMPT = re.compile(r"[ \t]*(?:\[[^\]\s]+@[^\]\n]*\][#$%]|[\w.-]+@[\w.-]+:\S*?[#$%>]|[$%>])[ \t]+")
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\f\v]+|\\\n)
      | (?P<comment>\#[^\n]*)
      | (?P<newline>\n)
      | (?P<end>;;?|&&|\|\|?|&(?!>))
      | (?P<redirect>\d*(?:>>|>&|<<-?|<&|&>|>|<)[ \t]*(?:&?\d|[^\s;&|<>]*))
      | (?P<word>(?:\\[\s\S] | '[^'\n]*' | "(?:\\.|[^"\\\n])*" | `[^`\n]{0,1000}`
                  | \$\(\([^()\n]{0,100}\)\) | \$\([^()\n]{0,1000}\)
                  | \$\{[^}\n]{0,200}\} | [^\s;&|<>'"`\\] )+)
      | (?P<other>[\s\S])""",
    re.VERBOSE,
)
_PIECE = re.compile(
    r"""\\(?P<escaped>[\s\S]) | '(?P<strong>[^'\n]*)' | "(?P<weak>(?:\\.|[^"\\\n])*)"
      | (?P<plain>[\s\S])""",
    re.VERBOSE,
)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.ASCII | re.DOTALL)
_COMPUTED = re.compile(r"\$\(\(\s*(\$?\w{1,30})\s*([-+*])\s*(\$?\w{1,30})\s*\)\)", re.ASCII)
_COMPUTE = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_SEQUENCE = re.compile(r"(?:\$\(|`)\s*seq\s+(\d{1,5})(?:\s+(\d{1,5}))?\s*[)`]", re.ASCII)
_SPAN = re.compile(r"(.*)\{(\d{1,5})\.\.(\d{1,5})\}(.*)", re.DOTALL)
_OPENING = {
    *("then", "do", "else", "elif", "if", "while", "until", "{", "(", "!"),
    *("time", "sudo", "exec"),
}
# Words whose statement is no command, and those that change nothing of the commands after them.
_KEYWORDS = {"fi", "esac", "done", "}", ")", "case", "function", "shift", "set", "return", "exit"}
_ASSIGNING = {"export", "local", "readonly", "declare", "typeset"}


@dataclass(frozen=True, slots=True)
class ShellCommand:
    """The words of one command, without quotes, and where it begins."""

    mark: Mark
    words: tuple[str, ...]


class TooManyCommandsError(Exception):
    """The command at ``mark`` is one too many; the message is "what; remedy"."""

    def __init__(self, mark: Mark) -> None:
        super().__init__(f"there are more than {MOST} commands; import parts of the file")
        self.mark = mark


def commands(text: str) -> Iterator[ShellCommand]:
    """The commands of ``text`` in their order; raises ``TooManyCommandsError`` after MOST."""
    statements = list(itertools.islice(_statements(text), MOST + 1))
    for count, command in enumerate(_ShellScript().run(statements, 0)):
        if count == MOST:
            raise TooManyCommandsError(command.mark)
        yield command


def is_unknown(word: str) -> bool:
    """Whether a shell would put another text in place of ``word``, or of a part of it."""
    return "$" in word or "`" in word


def _statements(text: str) -> Iterator[tuple[Mark, list[str]]]:
    """The statements with their raw words, prompts left out."""
    words: list[str] = []
    mark = Mark(1, 1)
    line, begin, position = 1, 0, 0
    while position < len(text):
        if position == begin and (prompt := _PROMPT.match(text, position)):
            position = prompt.end()
        match = _TOKEN.match(text, position)
        if match is None:
            return
        kind, piece = match.lastgroup, match[0]
        if kind == "comment" and position > begin and not text[position - 1].isspace():
            kind = "word"
        if kind in ("word", "other"):
            if not words:
                mark = Mark(line, position - begin + 1)
            words.append(piece)
        elif kind in ("end", "newline") and words:
            yield mark, words
            words = []
        position = match.end()
        if "\n" in piece:
            line += piece.count("\n")
            begin = match.start() + piece.rindex("\n") + 1
    if words:
        yield mark, words


class _ShellScript:
    """The variables of a script while its statements are read."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._turns = 0

    def run(self, statements: list[tuple[Mark, list[str]]], depth: int) -> Iterator[ShellCommand]:
        """The commands of ``statements``, within ``depth`` loops."""
        index = 0
        while index < len(statements):
            mark, raw = statements[index]
            index += 1
            while raw and (raw[0] in _OPENING or (raw[0].endswith(")") and "(" not in raw[0])):
                raw = raw[1:]  # a keyword, or the pattern of a `case`
            if raw[:1] == ["for"] and len(raw) > 2 and raw[2] == "in" and depth < _DEEPEST:
                body, index = _body(statements, index)
                if self._turns > _MOST_TURNS:
                    yield ShellCommand(mark, tuple(raw))  # an importer says that it is left out
                    continue
                items = [item for word in raw[3:] for item in self._items(word)]
                for item in items:
                    self._turns += 1
                    if self._turns > _MOST_TURNS:
                        yield ShellCommand(mark, tuple(raw))
                        break
                    self._values[raw[1]] = item
                    yield from self.run(body, depth + 1)
                self._values.pop(raw[1], None)
                continue
            words = self._assigned(raw)
            if words and words[0] not in _KEYWORDS:
                yield ShellCommand(mark, tuple(words))

    def _assigned(self, raw: list[str]) -> list[str]:
        """The words of a command; assignments before it, or in place of it, are remembered."""
        for place, word in enumerate(raw):
            match = _ASSIGNED.fullmatch(word)
            if match is None:
                if word in _ASSIGNING:
                    continue
                return [item for each in raw[place:] for item in self._expanded(each)]
            value = self._plain(match[2])
            self._values.pop(match[1], None)
            if not is_unknown(value) and len(value) <= _LONGEST:
                self._values[match[1]] = value
        return []

    def _items(self, word: str) -> list[str]:
        """The words that ``word`` of a `for` stands for."""
        sequence = _SEQUENCE.fullmatch(self._plain(word))
        if sequence is not None:
            first, last = (sequence[1], sequence[2]) if sequence[2] else ("1", sequence[1])
            return _span(f"{{{first}..{last}}}") if int(first) <= int(last) else []
        return [item for each in self._expanded(word) for item in _span(each)]

    def _expanded(self, word: str) -> list[str]:
        """``word`` without quotes, its variables replaced; without quotes at blanks divided."""
        plain = self._plain(word)
        if word[:1] in ("'", '"') or is_unknown(plain) or plain == word:
            return [plain]
        return plain.split() if "$" in word else [plain]

    def _plain(self, word: str) -> str:
        if not any(letter in word for letter in "\\'\"$"):
            return word
        pieces = []
        for match in _PIECE.finditer(word):
            if match["strong"] is not None or match["escaped"] is not None:
                pieces.append(match["strong"] or match["escaped"] or "")
            else:
                pieces.append(match["weak"] if match["weak"] is not None else match["plain"])
        return _VARIABLE.sub(self._value, _COMPUTED.sub(self._computed, "".join(pieces)))

    def _computed(self, match: re.Match[str]) -> str:
        """`$((i + 1))` of numbers, and of variables that are numbers."""
        names = (match[1].removeprefix("$"), match[3].removeprefix("$"))
        values = [self._values.get(name, name) for name in names]
        if not all(re.fullmatch(r"-?\d{1,9}", value, re.ASCII) for value in values):
            return match[0]
        return str(_COMPUTE[match[2]](*map(int, values)))

    def _value(self, match: re.Match[str]) -> str:
        return self._values.get(match[1] or match[2], match[0])


def _body(
    statements: list[tuple[Mark, list[str]]], index: int
) -> tuple[list[tuple[Mark, list[str]]], int]:
    """The statements of the loop before ``index`` up to its `done`, and the index after it."""
    depth, start = 1, index
    while index < len(statements):
        first = [word for word in statements[index][1][:3] if word not in _OPENING]
        if first[:1] in (["for"], ["while"], ["until"]):
            depth += 1
        elif first[:1] == ["done"]:
            depth -= 1
            if depth == 0:
                return statements[start:index], index + 1
        index += 1
    return statements[start:], index


def _span(word: str) -> list[str]:
    """`10.0.0.{1..3}` as three words."""
    match = _SPAN.fullmatch(word)
    if match is None:
        return [word]
    first, last = int(match[2]), int(match[3])
    if abs(last - first) > 1000:
        return [word]
    step = 1 if last >= first else -1
    return [f"{match[1]}{number}{match[4]}" for number in range(first, last + step, step)]

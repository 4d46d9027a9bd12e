"""The result of an importer for a file of another balancer.

Lives here: ``Draft``: the data of a configuration of ours, and for every value its place in the
other file, so that problems found later name that place.
Rules: an importer never raises for the content of a file. A mistake is a problem of the draft (its
path is in our configuration, its mark in the other file); a setting without a counterpart is a
note. No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from paraglider.config.diagnostics import Mark, Marks, Path, Problem
from paraglider.config.wording import shown

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

MOST = 1000  # most notes and problems, since a file of garbage would be all notes


@dataclass(slots=True)
class Draft:
    """A configuration in the making.

    ``data`` is the data of our configuration file, ``marks`` the place of each value in the other
    file, ``comments`` the comments on values, by path.
    """

    data: dict[str, Any] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)
    comments: dict[Path, str] = field(default_factory=dict)
    notes: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def too_many_problems(self) -> bool:
        """Whether the limit of problems is reached, so that reading can stop."""
        return len(self.problems) >= MOST

    def set(self, path: Path, value: Any, mark: Mark, comment: str = "") -> None:
        """Set the value at ``path``, whose place in the other file is ``mark``.

        Sections and lists on the path are created; an item is appended to its list. A text with a
        control character, which our file cannot have, is a mistake.
        """
        texts = value if isinstance(value, list) else [value]
        if wrong := [each for each in texts if isinstance(each, str) and _CONTROL.search(each)]:
            what = f"{shown(wrong[0])} contains a control character"
            self.mistake(path, mark, f"{what}; write the text on one line, without escapes")
        holder: Any = self.data
        for depth, step in enumerate(path[:-1]):
            self.marks.values.setdefault(path[: depth + 1], mark)
            holder = _entered(holder, step, [] if isinstance(path[depth + 1], int) else {})
        if isinstance(holder, list):
            _entered(holder, path[-1], value)
        else:
            holder[path[-1]] = value
        self.marks.values[path] = mark
        if comment:
            self.comments[path] = _printable(comment)

    def mistake(self, path: Path, mark: Mark, message: str) -> None:
        """Add a mistake at ``mark`` that leaves our key ``path`` without a value: "what;
        remedy".
        """
        what, _, remedy = _printable(message).partition("; ")
        self.problems.append(Problem(path, what, remedy, mark=mark))

    def note(self, mark: Mark, message: str, path: Path = ()) -> None:
        """Note a setting at ``mark`` without an exact counterpart: "what; remedy".

        The output has the note above ``path``, or at the top without one.
        """
        if len(self.notes) == MOST - 1:
            message, path = "here and below more has no counterpart; look at the rest yourself", ()
        if len(self.notes) < MOST:
            what, _, remedy = _printable(message).partition("; ")
            self.notes.append(Problem(path, what, remedy, mark=mark))


def counted(number: int, noun: str) -> str:
    """`1 rule is`, `2 rules are`."""
    return f"{number} {noun}s are" if number != 1 else f"{number} {noun} is"


def _printable(text: str) -> str:
    """``text`` on one line, without characters that a terminal or YAML would act on."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _entered(holder: Any, step: str | int, new: Any) -> Any:
    """The value of ``holder`` at ``step``; ``new`` is inserted if there is none."""
    if isinstance(holder, dict):
        return holder.setdefault(step, new)
    if step == len(holder):
        holder.append(new)
    return holder[step]


def number(text: str) -> int | str:
    """``text`` as a number; other text unchanged, which the model then refuses."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text

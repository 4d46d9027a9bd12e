"""What an importer makes of a file of another balancer.

Lives here: ``Draft``: the data of a configuration of ours, and for every value the place in the
other file that it comes from, so that whatever is found wrong with it later names that place.
Rules: an importer never raises for what a file says. What is wrong is a problem of the draft (its
path is ours, its mark is theirs); what has no counterpart here is a note. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paraglider.config.diagnostics import Mark, Marks, Path, Problem

MOST = 1000  # notes, and problems; nobody reads more, and a file of garbage is all notes


@dataclass(slots=True)
class Draft:
    """A configuration in the making.

    ``data`` is what the YAML of our own file would hold, ``marks`` says where in the other file
    each value stands, ``comments`` what to say of a value, by its path.
    """

    data: dict[str, Any] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)
    comments: dict[Path, str] = field(default_factory=dict)
    notes: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def hopeless(self) -> bool:
        """True when so much is wrong that reading on helps nobody."""
        return len(self.problems) >= MOST

    def put(self, path: Path, value: Any, mark: Mark, comment: str = "") -> None:
        """Sets the value at ``path``, which stands at ``mark`` in the other file.

        Sections and lists on the way come into being; an item is put behind the last one.
        """
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
            self.comments[path] = comment

    def wrong(self, path: Path, mark: Mark, message: str) -> None:
        """A mistake at ``mark`` that leaves our key ``path`` without a value: "what; remedy"."""
        what, _, remedy = message.partition("; ")
        self.problems.append(Problem(path, what, remedy, mark=mark))

    def note(self, mark: Mark, message: str, path: Path = ()) -> None:
        """Something at ``mark`` that has no counterpart here, or not quite: "what; remedy".

        ``path`` is what the output says it above; without one it is said at the top.
        """
        if len(self.notes) == MOST - 1:
            message, path = "here and below more has no counterpart; look at the rest yourself", ()
        if len(self.notes) < MOST:
            what, _, remedy = message.partition("; ")
            self.notes.append(Problem(path, what, remedy, mark=mark))


def _entered(holder: Any, step: str | int, new: Any) -> Any:
    """What ``holder`` has at ``step``; ``new``, put there, where it has nothing."""
    if isinstance(holder, dict):
        return holder.setdefault(step, new)
    if step == len(holder):
        holder.append(new)
    return holder[step]


def number(text: str) -> int | str:
    """The number that ``text`` is; any other text as it is, for the model to refuse."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text

"""What is wrong in a configuration file, and where: problems, places, the error that carries them.

Lives here: ``Path`` (keys and indices from the root of the file), ``Mark`` (line and column),
``Marks`` (path → mark), ``Problem``, ``PathSet``, ``ConfigError``, ``report``.
Rules: a problem names its place by path, so that what finds it need not know the text of the
file; only ``Marks`` turns paths into lines. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from paraglider.errors import OperatorError

Path = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in the file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake (or one warning): what is wrong at ``path``, and what would be right.

    ``at``: "value" points at the value, "key" at the key before it (where the key is the mistake).
    ``needs``: further paths whose values the finding rests on; when one of them is itself in
    error, the finding is worth nothing and is left out.
    ``mark``: the place itself, where no path leads to it (a key that appears twice).
    """

    path: Path
    what: str
    remedy: str
    at: Literal["value", "key"] = "value"
    needs: tuple[Path, ...] = ()
    mark: Mark | None = None

    def rests_on(self, unknown: PathSet) -> bool:
        """True when a path that the finding rests on lies within or above one of ``unknown``."""
        return any(unknown.touches(path) for path in (self.path, *self.needs))


class PathSet:
    """Paths, and quickly whether another one is, encloses or lies within one of them."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._paths: set[Path] = set()
        self._above: set[Path] = set()
        for path in paths:
            self.add(path)

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths)

    def add(self, path: Path) -> None:
        """Takes ``path`` in."""
        self._paths.add(path)
        self._above.update(path[:length] for length in range(len(path) + 1))

    def touches(self, path: Path) -> bool:
        """True when ``path`` is one of the paths, leads to one, or lies within one."""
        within = (path[:length] in self._paths for length in range(len(path) + 1))
        return path in self._above or any(within)


def spelled(path: Path) -> str:
    """A path as a person writes it: ``services[0].ports``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


@dataclass(slots=True)
class Marks:
    """Where each key and each value of one file stands, and how each scalar is written there."""

    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)

    def value(self, path: Path) -> Mark:
        """The place of a value, or of the nearest enclosing one that the file has."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Mark(1, 1))

    def key(self, path: Path) -> Mark:
        """The place of a key; of an item of a list, or without such a key, that of the value."""
        return self.keys.get(path) or self.value(path)

    def of(self, problem: Problem) -> Mark:
        """The place that a problem points at."""
        if problem.mark is not None:
            return problem.mark
        return self.key(problem.path) if problem.at == "key" else self.value(problem.path)


class ConfigError(OperatorError):
    """The configuration file is wrong; ``lines`` has one ``FILE:LINE:COL: what; remedy`` each."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def report(file: str, marks: Marks, problems: Iterable[Problem]) -> list[str]:
    """``FILE:LINE:COL: what; remedy`` a problem, in the order of the file, none twice."""
    placed = sorted({(marks.of(problem), problem.what, problem.remedy) for problem in problems})
    return [f"{file}:{mark.line}:{mark.column}: {what}; {remedy}" for mark, what, remedy in placed]

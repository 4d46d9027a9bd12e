"""Problems in a configuration file: their places, their messages, and the error with all of them.

Lives here: ``Path`` (keys and indices from the root of the file), ``Mark`` (line and column),
``Marks`` (path → mark), ``Problem``, ``PathSet``, ``PlacedProblem`` (a problem at its place in a
file), ``ConfigError``, ``report``.
Rules: a problem has a path, so that the code that finds it does not need the file's text; only
``Marks`` converts paths to lines. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from paraglider.errors import OperatorError

Path = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in the file; both count from 1. ``file`` is the name of an included file, if it is in
    one.
    """

    line: int
    column: int
    file: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake or warning at ``path``, and its remedy.

    ``at``: "value" points at the value, "key" at its key (if the key is the mistake).
    ``needs``: further paths that the finding depends on; if one of them has an error itself, the
    finding is dropped.
    ``mark``: the place, if it has no path (a duplicate key).
    """

    path: Path
    what: str
    remedy: str
    at: Literal["value", "key"] = "value"
    needs: tuple[Path, ...] = ()
    mark: Mark | None = None

    def rests_on(self, unknown: PathSet) -> bool:
        """Whether a path that the finding depends on lies within or above one of ``unknown``."""
        return any(unknown.touches(path) for path in (self.path, *self.needs))


class PathSet:
    """A set of paths with a fast test whether a path is, encloses or lies within one of them."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._paths: set[Path] = set()
        self._above: set[Path] = set()
        for path in paths:
            self.add(path)

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths)

    def add(self, path: Path) -> None:
        """Add ``path``."""
        self._paths.add(path)
        self._above.update(path[:length] for length in range(len(path) + 1))

    def touches(self, path: Path) -> bool:
        """Whether ``path`` is one of the paths, encloses one, or lies within one."""
        within = (path[:length] in self._paths for length in range(len(path) + 1))
        return path in self._above or any(within)


def spelled(path: Path) -> str:
    """A path as text: ``services[0].ports``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


@dataclass(slots=True)
class Marks:
    """The places of the keys and values of one file, and the scalars as written there.

    ``routes`` has the path of the route of which a service was made (``route_list``), and the keys
    that this has of the service around it, by the path of the new service.
    """

    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    routes: dict[Path, tuple[Path, frozenset[str]]] = field(default_factory=dict)

    def written(self, path: Path) -> Path:
        """``path`` as it is in the file: within a service that was made of a route, it leads into
        the route, or for a key of the service around that, into this.
        """
        if path[:2] not in self.routes:
            return path
        (route, inherited), rest = self.routes[path[:2]], path[2:]
        if rest[:1] == ("route",):
            return (*route, *rest[1:]) if rest[1:] else route[:-1]
        return (*route[:-2], *rest) if rest and rest[0] in inherited else (*route, *rest)

    def value(self, path: Path) -> Mark:
        """The place of a value, or of the nearest enclosing value in the file."""
        path = self.written(path)
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Mark(1, 1))

    def key(self, path: Path) -> Mark:
        """The place of a key; of an item of a list, or without such a key, that of the value."""
        return self.keys.get(self.written(path)) or self.value(path)

    def of(self, problem: Problem) -> Mark:
        """The place of a problem."""
        if problem.mark is not None:
            return problem.mark
        return self.key(problem.path) if problem.at == "key" else self.value(problem.path)


@dataclass(frozen=True, slots=True)
class PlacedProblem:
    """A problem at its place in ``file``; its text is ``FILE:LINE:COL: what; remedy``. Without a
    ``mark`` it is about the file itself.
    """

    file: str
    mark: Mark | None
    what: str
    remedy: str
    path: Path = field(default=(), compare=False)

    def __str__(self) -> str:
        place = "" if self.mark is None else f":{self.mark.line}:{self.mark.column}"
        return f"{self.file}{place}: {self.what}; {self.remedy}"


class ConfigError(OperatorError):
    """The configuration file is wrong. ``findings`` are its mistakes; one that has no place, or
    that a daemon has sent, is a text. ``lines`` are their texts.
    """

    def __init__(self, findings: Iterable[PlacedProblem | str]) -> None:
        self.findings = tuple(findings)
        self.lines = tuple(map(str, self.findings))
        super().__init__("\n".join(self.lines))


def report(file: str, marks: Marks, problems: Iterable[Problem]) -> list[PlacedProblem]:
    """Each of ``problems`` at its place, in the order of the file, without duplicates; those in
    included files come last.
    """
    placed: dict[tuple[str, Mark, str, str], Path] = {}
    for problem in problems:
        mark = marks.of(problem)
        place = mark.file, mark, problem.what, problem.remedy
        placed.setdefault(place, marks.written(problem.path))
    return [
        PlacedProblem(place[0] or file, *place[1:], placed[place])
        for place in sorted(placed, key=lambda one: (one[0], *one[1:]))
    ]

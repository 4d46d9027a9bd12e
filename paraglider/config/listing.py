"""Parses a file of backends, ``backends: {file: PATH}``, or reports all its mistakes.

    # a comment
    10.0.0.1
    10.0.0.2:8080 weight=3
    [fd00:10::3]:8080

Lives here: ``parse``.
Rules: one backend per line, ``ADDRESS[:PORT] [weight=N]``, an IPv6 address with a port in brackets.
``service.BackendConfig`` validates the values. The number of backends and of reported mistakes is
bounded for any file. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from paraglider.config.diagnostics import Mark, Marks, Path, Problem
from paraglider.config.model import BackendConfig
from paraglider.config.types import parse_backend
from paraglider.config.wording import shown

#: most backends of one file
MOST: Final = 10_000
#: most mistakes that are reported of one file
MOST_TOLD: Final = 100

SHAPE: Final = "write `10.0.0.1`, `10.0.0.1:8080 weight=3` or `[fd00:10::1]:8080`"
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(slots=True)
class BackendList:
    """The backends of one file, their places, and the problems."""

    backends: tuple[BackendConfig, ...] = ()
    marks: Marks = field(default_factory=Marks)
    problems: list[Problem] = field(default_factory=list)


def parse(text: str, place: Path) -> BackendList:
    """The backends in ``text``, which is the list at ``place`` of the configuration."""
    listing = BackendList()
    found: list[BackendConfig] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = [
            (Mark(number, match.start() + 1), match[0])
            for match in re.finditer(r"\S+", line.partition("#")[0])
        ]
        if not words:
            continue
        if len(found) == MOST:
            what = f"the file lists more than {MOST} backends"
            listing.problems.append(Problem(place, what, "list fewer", mark=words[0][0]))
        if len(found) == MOST or len(listing.problems) >= MOST_TOLD:
            break
        try:
            found.append(_backend(words, (*place, len(found)), listing.marks))
        except _LineError as error:
            listing.problems.append(error.problem)
    if not found and not listing.problems:
        what = "the file lists no backend"
        remedy = "list one, or take the service out of the configuration"
        listing.problems.append(Problem(place, what, remedy, mark=Mark(1, 1)))
    listing.backends = tuple(found)
    return listing


class _LineError(Exception):
    """A line is not a backend."""

    def __init__(self, path: Path, what: str, remedy: str, mark: Mark) -> None:
        self.problem = Problem(path, what, remedy, mark=mark)
        super().__init__(what)


def _backend(words: list[tuple[Mark, str]], path: Path, marks: Marks) -> BackendConfig:
    start, end = words[0]
    marks.values[path] = start
    try:
        given = dict(parse_backend(end, SHAPE))
    except ValueError as error:
        what, _, remedy = str(error).partition("; ")
        raise _LineError(path, what, remedy, start) from None
    keys = dict(_keys(words[1:], path))
    for key, (mark, value) in keys.items():
        marks.values[*path, key] = mark
        given[key] = value
    try:
        return BackendConfig.model_validate(given)
    except ValidationError:
        mark, value = keys["weight"]  # all other keys have been checked above
        what = f"`weight`: {value} is out of range"
        raise _LineError(path, what, "write 0 to 65535", mark) from None


def _keys(words: list[tuple[Mark, str]], path: Path) -> Iterator[tuple[str, tuple[Mark, int]]]:
    seen = False
    for mark, word in words:
        key, equals, value = word.partition("=")
        if key != "weight" or not equals:
            raise _LineError(path, f"{shown(word)} means nothing here", SHAPE, mark)
        if seen:
            raise _LineError(path, "`weight` appears twice in one line", "keep one", mark)
        if not _NUMBER.fullmatch(value):
            what = f"`weight`: {shown(value)} is no whole number"
            raise _LineError(path, what, "write one such as weight=3", mark)
        seen = True
        yield key, (mark, int(value))

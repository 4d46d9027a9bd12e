"""Loads a configuration file as ``Config``, or raises with all its mistakes.

Lives here: ``load``, ``load_with_marks``, ``loading`` and ``LoadedConfig``: from text (``source``)
through plain data (``reader``, ``route_list``) and the model (``model``, ``messages``) to the
checks (``check``). A ``glider.yaml`` is detected by its root key, and converted.
Rules: raises only ``ConfigError`` for any content. Never writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from paraglider.config import check, messages, reader, route_list, source
from paraglider.config.addresses import given_addresses
from paraglider.config.diagnostics import (
    ConfigError,
    Marks,
    Path,
    PathSet,
    PlacedProblem,
    Problem,
    report,
)
from paraglider.config.importers import glider
from paraglider.config.importers.draft import Draft
from paraglider.config.model import Config
from paraglider.config.steps import Steps, completed
from paraglider.errors import OperatorError

__all__ = ["ConfigError", "LoadedConfig", "load", "load_with_marks", "loading"]


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration with the places of its keys, for later problems."""

    config: Config
    marks: Marks
    file: str

    def findings(self, problems: Iterable[Problem]) -> list[PlacedProblem]:
        """``problems`` at their places, in the order of the file."""
        return report(self.file, self.marks, problems)

    def lines(self, problems: Iterable[Problem]) -> list[str]:
        """``FILE:LINE:COL: what; remedy`` a problem, in the order of the file."""
        return list(map(str, self.findings(problems)))

    def refuse(self, problems: Iterable[Problem]) -> None:
        """Raise ``ConfigError`` with all ``problems``, if there are any."""
        findings = self.findings(problems)
        if findings:
            raise ConfigError(findings)

    def for_families(self, families: frozenset[int]) -> Config:
        """The configuration with the services of ``families``; raises ``OperatorError`` when it
        has none.
        """
        config = self.config.for_families(families)
        if not config.services:
            wanted = " or ".join(f"IPv{family}" for family in sorted(families))
            what = f"{self.file} has no {wanted} service"
            raise OperatorError(what, "leave -4 and -6 out, or add one")
        return config


def load(path: str | FilePath) -> Config:
    """The configuration in the file ``path``; raises ``ConfigError`` with every mistake in it."""
    return load_with_marks(path).config


def load_with_marks(path: str | FilePath) -> LoadedConfig:
    """As ``load``, with the places of the keys; raises ``ConfigError``."""
    return completed(loading(path))


def loading(path: str | FilePath) -> Steps[LoadedConfig]:
    """As ``load_with_marks``, in steps."""
    file = str(path)
    return (yield from _parsing(source.read(file), file))


def parse(text: str, file: str) -> LoadedConfig:
    """The configuration in ``text``; ``file`` is its name in messages. Raises ``ConfigError``."""
    return completed(_parsing(text, file))


def _parsing(text: str, file: str) -> Steps[LoadedConfig]:
    parsed = yield from reader.parsing(text)
    yield
    problems = list(parsed.problems)
    if not parsed.broken and not isinstance(parsed.data, dict):
        what = "the file is no mapping of keys to values"
        problems.append(Problem((), what, "start from the example conf/paraglider.conf"))
    if parsed.broken or not isinstance(parsed.data, dict):
        raise ConfigError(report(file, parsed.marks, problems))
    if glider.is_glider(parsed.data):
        draft = glider.convert(parsed)
        # Notes that `import` prints for the operator are errors here.
        draft.problems += [replace(note, path=(glider.ROOT,)) for note in draft.notes]
        return accepted(draft, file)
    return (yield from _accepting(parsed.data, parsed.marks, problems, file))


def accepted(draft: Draft, file: str) -> LoadedConfig:
    """The configuration that an importer made of ``file``; raises ``ConfigError`` with every
    mistake, at its place in that file.
    """
    return completed(_accepting(draft.data, draft.marks, draft.problems, file))


def _accepting(
    data: dict[str, Any], marks: Marks, problems: list[Problem], file: str
) -> Steps[LoadedConfig]:
    data, mistaken = route_list.expand(data, marks)
    problems = [*problems, *mistaken]
    config, found = yield from _checked(data, marks, problems)
    if problems or found or config is None:
        raise ConfigError(report(file, marks, [*problems, *found]))
    return LoadedConfig(config, marks, file)


def _checked(
    data: dict[str, Any], marks: Marks, known: list[Problem]
) -> Steps[tuple[Config | None, list[Problem]]]:
    """The configuration, if the model accepts it, and all problems that are not in ``known``."""
    unknown = PathSet(problem.path for problem in known)
    try:
        config = _modelled(data)
        yield
        if known:
            return config, _consistent(data, unknown)
        return config, [*given_addresses(config), *(yield from check.checking(config))]
    except ValidationError as error:
        findings = error.errors(include_url=False)
    problems: list[Problem] = []
    wrong = PathSet(unknown)
    for finding in findings:
        path: Path = tuple(finding["loc"])
        if unknown.touches(path):
            continue  # a YAML error, which is reported already
        new = messages.reword(finding, marks)
        problems += new
        if new:
            wrong.add(path)
        is_unknown_key = finding["type"] == "extra_forbidden"
        meant = messages.suggestion(path, marks) if is_unknown_key else None
        if meant is not None:
            wrong.add((*path[:-1], meant))
    return None, problems + _consistent(data, wrong)


def _modelled(data: Any) -> Config:
    return Config.model_validate(data, by_alias=True, by_name=False)


def _consistent(data: Any, unknown: PathSet) -> list[Problem]:
    """The errors of ``check``, as far as the known problems allow checking."""
    try:
        config = _modelled(messages.repaired(data, unknown))
    except ValidationError:
        return []  # too little is valid for checking; the problems found so far come first
    return [problem for problem in check.check(config) if not problem.rests_on(unknown)]

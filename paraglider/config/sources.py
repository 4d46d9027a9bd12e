"""Services with backends from a file or DNS, ``backends: {file: …}`` or ``{dns: …}``.

Lives here: ``origins`` (these services), ``resolved`` (the configuration with the lists that were
found), ``read_files`` (reads the files), ``FileListing`` and ``refusals`` (the problems of a list).
Rules: a list that was found is validated like one in the configuration, by ``check``, and its
problems are reported with their places in the list's file. Only reads files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from paraglider.config import check, listing, source
from paraglider.config.diagnostics import ConfigError, Path, PlacedProblem, Problem, report
from paraglider.config.listing import BackendList
from paraglider.config.load import LoadedConfig
from paraglider.config.model import BackendConfig, BackendSource, Config

#: the backends that were found, by service name
Found = Mapping[str, tuple[BackendConfig, ...]]


def origins(config: Config) -> dict[str, BackendSource]:
    """The sources of the services whose backends are not in the file, by service name."""
    return {s.name: s.source for s in config.services if s.source is not None}


def resolved(config: Config, found: Found) -> Config:
    """``config`` with the lists that were found; services without one are unchanged."""
    services = tuple(
        service.with_backends(found[service.name]) if service.name in found else service
        for service in config.services
    )
    return config.model_copy(update={"services": services})


@dataclass(frozen=True, slots=True)
class FileListing:
    """The list in a service's file; ``place`` is its path in the configuration."""

    service: str
    file: str
    place: Path
    listing: BackendList

    @classmethod
    def read(cls, config: Config, service: str, file: str) -> FileListing:
        """Read ``file`` for ``service``; raises ``ConfigError`` with every mistake in it."""
        index = [known.name for known in config.services].index(service)
        place = ("services", index, "backends")
        remedy = "write it, or name another under `backends`"
        text, told = source.read_for(config.user, file, remedy)
        found = listing.parse(text, place)
        if found.problems:
            problems = found.problems if told else [_hidden(each) for each in found.problems]
            raise ConfigError(report(file, found.marks, problems))
        return cls(service, file, place, found)

    @property
    def backends(self) -> tuple[BackendConfig, ...]:
        """The backends of the list."""
        return self.listing.backends

    def has(self, problem: Problem) -> bool:
        """Whether ``problem`` is in this list."""
        return problem.path[: len(self.place)] == self.place

    def findings(self, problem: Problem) -> list[PlacedProblem]:
        """A problem in this list, at its place."""
        return report(self.file, self.listing.marks, [problem])


def _hidden(problem: Problem) -> Problem:
    """``problem`` without text of the file: otherwise a user who can replace the file by a symbolic
    link could read root's files in the log.
    """
    what = "this is no backend; what it is stays untold, since the user of the workers"
    return replace(problem, what=f"{what} may not read the file", remedy=listing.SHAPE)


def read_files(loaded: LoadedConfig) -> dict[str, tuple[BackendConfig, ...]]:
    """The lists in the backend files of ``loaded``.

    Raises ``ConfigError`` with all mistakes in them, and all conflicts with the configuration.
    """
    mistakes: list[PlacedProblem | str] = []
    read: list[FileListing] = []
    for service in loaded.config.services:
        if service.source is not None and service.source.file is not None:
            try:
                read.append(FileListing.read(loaded.config, service.name, service.source.file))
            except ConfigError as error:
                mistakes += error.findings
    found = {one.service: one.backends for one in read}
    for problem in refusals(loaded.config, found) if found else ():
        mistakes += _placed(problem, read, loaded)
    if mistakes:
        raise ConfigError(dict.fromkeys(mistakes))
    return found


def refusals(config: Config, found: Found) -> list[Problem]:
    """The problems of ``config``, which is valid itself, with the lists ``found``."""
    return check.check(resolved(config, found))


def _placed(problem: Problem, read: list[FileListing], loaded: LoadedConfig) -> list[PlacedProblem]:
    listed = next((one for one in read if one.has(problem)), None)
    return loaded.findings([problem]) if listed is None else listed.findings(problem)

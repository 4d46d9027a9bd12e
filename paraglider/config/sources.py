"""Services whose backends are listed elsewhere, ``backends: {file: …}`` or ``{dns: …}``.

Lives here: ``origins`` (which services these are), ``resolved`` (the configuration as if it listed
what was found), ``read_files`` (what the files that it names list), ``FileListing`` and
``refusals`` (what speaks against a list).
Rules: a list that was found is judged as one in the configuration is, by ``validate``, and what is
wrong with it is told at its place in its own file. Files are read, nothing else is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from paraglider.config import check, listing, source
from paraglider.config.diagnostics import ConfigError, Path, Problem, report
from paraglider.config.listing import BackendList
from paraglider.config.load import LoadedConfig
from paraglider.config.model import Backend, BackendSource, Config

#: backends that were found, by the names of their services
Found = Mapping[str, tuple[Backend, ...]]


def origins(config: Config) -> dict[str, BackendSource]:
    """Where the backends of services are listed, if not in the file; by the services' names."""
    return {s.name: s.source for s in config.services if s.source is not None}


def resolved(config: Config, found: Found) -> Config:
    """``config`` as if it listed what was found; a service without remains as it is."""
    services = tuple(
        service.with_backends(found[service.name]) if service.name in found else service
        for service in config.services
    )
    return config.model_copy(update={"services": services})


@dataclass(frozen=True, slots=True)
class FileListing:
    """What a service's file lists; ``place`` is where the list would stand in the configuration."""

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
    def backends(self) -> tuple[Backend, ...]:
        """The backends that it lists."""
        return self.listing.backends

    def has(self, problem: Problem) -> bool:
        """Whether ``problem`` is of this list."""
        return problem.path[: len(self.place)] == self.place

    def lines(self, problem: Problem) -> list[str]:
        """``FILE:LINE:COL: what; remedy`` of a problem that it has."""
        return report(self.file, self.listing.marks, [problem])


def _hidden(problem: Problem) -> Problem:
    """``problem`` without a word of the file: whoever may put a link in its place could otherwise
    read in the log what only root may read.
    """
    what = "this is no backend; what it is stays untold, since the user of the workers"
    return replace(problem, what=f"{what} may not read the file", remedy=listing.SHAPE)


def read_files(loaded: LoadedConfig) -> dict[str, tuple[Backend, ...]]:
    """What the files of backends that ``loaded`` names list.

    Raises ``ConfigError`` with every mistake in them, and all that contradicts the configuration.
    """
    lines: list[str] = []
    read: list[FileListing] = []
    for service in loaded.config.services:
        if service.source is not None and service.source.file is not None:
            try:
                read.append(FileListing.read(loaded.config, service.name, service.source.file))
            except ConfigError as error:
                lines += error.lines
    found = {one.service: one.backends for one in read}
    for problem in refusals(loaded.config, found) if found else ():
        lines += _placed(problem, read, loaded)
    if lines:
        raise ConfigError(dict.fromkeys(lines))
    return found


def refusals(config: Config, found: Found) -> list[Problem]:
    """What speaks against ``found`` in ``config``, which is valid without."""
    return check.check(resolved(config, found))


def _placed(problem: Problem, read: list[FileListing], loaded: LoadedConfig) -> Iterator[str]:
    listed = next((one for one in read if one.has(problem)), None)
    yield from loaded.lines([problem]) if listed is None else listed.lines(problem)

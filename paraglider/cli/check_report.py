"""What `paraglider check` found: as text for people, and as data for programs (`--json`).

Lives here: ``FileReport`` and ``CheckedService``.
Rules: pure. Every warning and error has the same keys in JSON; what is not known is null: a place
for what is no mistake of the file, a remedy for what comes without one. A text is ``what; remedy``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from paraglider.config.diagnostics import ConfigError, PlacedProblem, spelled
from paraglider.errors import ParagliderError


@dataclass(frozen=True, slots=True)
class CheckedService:
    """A service: its facts, and what its forward method and its strategy do."""

    facts: Mapping[str, Any]
    forward: str
    strategy: str

    def lines(self) -> Iterator[str]:
        """Three lines: the facts as key=value, the method, the strategy."""
        yield " ".join(f"{key}={value}" for key, value in self.facts.items())
        yield f"  {self.facts['forward']}: {self.forward}"
        yield f"  {self.strategy}"

    def data(self) -> dict[str, Any]:
        """The same as plain data."""
        facts = {
            key: value if isinstance(value, int) else str(value)
            for key, value in self.facts.items()
        }
        return {**facts, "about_forward": self.forward, "about_strategy": self.strategy}


@dataclass(slots=True)
class FileReport:
    """The result of a check of ``file``. ``carrier`` is what carries flows on this host, None if
    that was not asked; ``chains`` of other firewalls on this host drop its packets.
    """

    file: str
    warnings: list[PlacedProblem | str] = field(default_factory=list)
    carrier: str | None = None
    chains: tuple[str, ...] = ()
    services: list[CheckedService] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The text without the warnings."""
        if self.carrier is not None:
            yield f"carrier: {self.carrier}"
        dropped = f", but this host drops it: chain {', '.join(self.chains)}" if self.chains else ""
        yield f"{self.file}: ok{dropped}"
        for service in self.services:
            yield from service.lines()

    def data(self, error: ParagliderError | None = None) -> dict[str, Any]:
        """Everything as plain data; with ``error``, which ended the check, the file is not
        valid.
        """
        return {
            "file": self.file or None,
            "valid": error is None,
            "exit_code": 0 if error is None else error.exit_code,
            "errors": [_plain(each) for each in _errors(error)],
            "warnings": [_plain(each) for each in self.warnings],
            "carrier": self.carrier,
            "services": [service.data() for service in self.services],
        }


def _errors(error: ParagliderError | None) -> Iterable[PlacedProblem | ParagliderError | str]:
    if error is None:
        return ()
    return error.findings if isinstance(error, ConfigError) else (error,)


def _plain(found: PlacedProblem | ParagliderError | str) -> dict[str, Any]:
    plain: dict[str, Any] = dict.fromkeys(("file", "path", "line", "column", "message", "remedy"))
    if isinstance(found, str):
        what, _, remedy = found.partition("; ")
        return {**plain, "message": what, "remedy": remedy or None}
    plain |= {"message": found.what, "remedy": found.remedy or None}
    if isinstance(found, PlacedProblem):
        plain |= {"file": found.file, "path": spelled(found.path) or None}
        if found.mark is not None:
            plain |= {"line": found.mark.line, "column": found.mark.column}
    return plain

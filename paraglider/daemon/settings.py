"""The file and options that a daemon was started with, and the resulting configuration, at the
start and at every reload.

Lives here: ``Settings``, ``Read``.
Rules: every mistake in a file is found here, before anything is changed; errors name file, line and
column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paraglider.config.advice import warnings
from paraglider.config.digest import digesting
from paraglider.config.model import Config
from paraglider.config.sources import Found, read_files
from paraglider.config.steps import Steps, completed
from paraglider.forward.load import LoadedConfig, loading
from paraglider.host.own_addresses import with_own_addresses
from paraglider.host.seed import machine_seed


@dataclass(frozen=True, slots=True)
class Read:
    """The result of reading a file: the configuration with the options applied, and notes;
    ``listed`` are the backends in the files that it refers to, ``digests`` those of its sections.
    """

    loaded: LoadedConfig
    config: Config
    warnings: tuple[str, ...]
    listed: Found
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """The file, and the options of the command line, which override it."""

    path: Path
    families: frozenset[int] = frozenset({4, 6})
    failover: bool = False
    queue_length: int | None = None
    user: str | None = None

    def read(self) -> Read:
        """Read the file and the backend files that it refers to; raises ``ConfigError`` with every
        mistake in them, ``OperatorError``.
        """
        return completed(self.reading())

    def reading(self) -> Steps[Read]:
        """As ``read``, in steps."""
        loaded, notes = with_own_addresses((yield from loading(self.path)), self.families)
        yield
        noted = list(map(str, notes))
        config = self._with_failover(loaded.for_families(self.families))
        noted += loaded.lines(warnings(self._with_failover(loaded.config)))
        config = config.seeded(machine_seed(noted.append) if config.seed is None else None)
        changes: dict[str, object] = {}
        if self.queue_length is not None:
            changes["queue"] = config.queue.model_copy(update={"length": self.queue_length})
        if self.user is not None:
            changes["user"] = self.user
        config = config.model_copy(update=changes)
        listed = read_files(loaded)
        yield
        digests = yield from digesting(config)
        return Read(loaded, config, tuple(noted), listed, digests)

    def _with_failover(self, config: Config) -> Config:
        """``config`` with failover enabled if the option `-f` is given."""
        if not self.failover:
            return config
        on = config.failover.model_copy(update={"enabled": True})
        return config.model_copy(update={"failover": on})

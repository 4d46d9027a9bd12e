"""The last DNS answers, in a file in /run, for a daemon that starts while DNS does not answer.

Lives here: the file, with its content as plain data; the daemon interprets the data.
Rules: as for ``run_file``. The next answer replaces a damaged file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paraglider.host.ownership import RUN_DIRECTORY
from paraglider.host.run_file import RunFile

VERSION = 1

Plain = dict[str, Any]


class DnsCacheFile:
    """The file of one network namespace, this one when ``cookie`` is None."""

    def __init__(self, directory: Path = RUN_DIRECTORY, cookie: int | None = None) -> None:
        self._file = RunFile(directory, cookie, "answers", VERSION)
        self.path = self._file.path

    def load(self) -> list[Plain]:
        """The stored answers; empty if there are none since the host was booted."""
        try:
            return [each for each in self._file.load()["answers"] if isinstance(each, dict)]
        except (KeyError, TypeError):
            return []

    def store(self, answers: Sequence[Plain]) -> None:
        """Replace the file; without answers, remove it. Raises ``OSError``."""
        self._file.store({"answers": list(answers)} if answers else {})

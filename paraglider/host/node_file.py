"""Whether this balancer was drained by the operator, in a file in /run, for the next daemon.

Lives here: ``NodeFile``.
Rules: as for ``run_file``. There is a file only while the balancer is drained: one that nobody
drained must be announced.
"""

from __future__ import annotations

from pathlib import Path

from paraglider.host.ownership import RUN_DIRECTORY
from paraglider.host.run_file import RunFile

VERSION = 1
_LATEST = 1 << 35  # seconds since the epoch: no clock says so


class NodeFile:
    """The file of one network namespace, this one when ``cookie`` is None."""

    def __init__(self, directory: Path = RUN_DIRECTORY, cookie: int | None = None) -> None:
        self._file = RunFile(directory, cookie, "node", VERSION)
        self.path = self._file.path

    def load(self) -> float | None:
        """Since when the balancer is drained, in seconds since the epoch; None if it is not."""
        try:
            since = float(self._file.load()["drained_since"])
        except (ValueError, KeyError, TypeError, OverflowError):
            return None
        return since if 0 <= since < _LATEST else None

    def store(self, drained_since: float | None) -> None:
        """Replace the file; remove it if the balancer is not drained. Raises ``OSError``."""
        self._file.store({} if drained_since is None else {"drained_since": drained_since})

"""The default chroot directory, which lives in /run and so vanishes with every boot.

Rules: it serves every network namespace of the host, so no state keeps it and ``--undo`` leaves it;
a set-up that fails takes it away again while nothing is in it.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from paraglider.host.changes.base import Action, Host


@dataclass(frozen=True, slots=True)
class DirectoryChange:
    """A directory is made."""

    kind: ClassVar[str] = "directory"
    family: int
    path: str

    @property
    def identity(self) -> tuple[str, ...]:
        """The path."""
        return (self.kind, self.path)

    def describe(self, action: Action) -> str:
        """The path."""
        return f"directory {self.path}" + (" removed" if action == "revert" else "")

    def script(self, host: Host) -> str:
        """mkdir(1)."""
        return f"mkdir -m 755 {shlex.quote(self.path)}\n"

    def revert_script(self, host: Host) -> str:
        """rmdir(1)."""
        return f"rmdir {shlex.quote(self.path)}\n"

    def apply(self, host: Host) -> None:
        """Make it."""
        Path(self.path).mkdir(mode=0o755, exist_ok=True)

    def revert(self, host: Host) -> None:
        """Remove it, unless somebody has put something there."""
        with suppress(OSError):
            Path(self.path).rmdir()

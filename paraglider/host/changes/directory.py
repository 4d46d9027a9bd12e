"""The default chroot directory, which is in /run and does not survive a reboot.

Rules: all network namespaces of the host share it, so it is not in the state and ``--undo`` keeps
it. A set-up that fails removes it if it is empty.
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
    """A new directory."""

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
        """Create it."""
        Path(self.path).mkdir(mode=0o755, exist_ok=True)

    def revert(self, host: Host) -> None:
        """Remove it if it is empty."""
        with suppress(OSError):
            Path(self.path).rmdir()

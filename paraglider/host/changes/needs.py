"""Which changes a backend's host needs for which service: a note, so that one can be undone alone.

Rules: two services may need the same address or sysctl; it stays as long as one of them does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paraglider.host.changes.base import Action, Host


@dataclass(frozen=True, slots=True)
class ServedChange:
    """This host serves ``service`` as ``backends``; ``needs`` are the identities of changes."""

    kind: ClassVar[str] = "served"
    family: int
    service: str
    backends: list[str]
    needs: list[list[str]]

    @property
    def identity(self) -> tuple[str, ...]:
        """The service."""
        return (self.kind, self.service)

    def describe(self, action: Action) -> str:
        """The service and the backends."""
        verb = "no longer serves" if action == "revert" else "serves"
        return f"this host {verb} `{self.service}` as {', '.join(self.backends)}"

    def script(self, host: Host) -> str:
        """Nothing: it is a note."""
        return ""

    def revert_script(self, host: Host) -> str:
        """Nothing: it is a note."""
        return ""

    def apply(self, host: Host) -> None:
        """The state has it."""

    def revert(self, host: Host) -> None:
        """The state has it no more."""

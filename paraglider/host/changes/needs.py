"""A record of the changes that a backend's host needs for a service, to undo one service alone.

Rules: services may share an address or sysctl; it stays as long as one of them needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from paraglider.host.changes.base import Action, Host


@dataclass(frozen=True, slots=True)
class ServedChange:
    """This host is ``backends`` of ``service``; ``needs`` are the identities of changes."""

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
        """Empty: this is a record only."""
        return ""

    def revert_script(self, host: Host) -> str:
        """Empty: this is a record only."""
        return ""

    def apply(self, host: Host) -> None:
        """Nothing to do: it is stored in the state."""

    def revert(self, host: Host) -> None:
        """Nothing to do: it is removed from the state."""

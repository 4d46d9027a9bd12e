"""The table of leases of ``forward: dsr`` of one family, as a change.

Rules: what is replaced is replaced in one transaction; flows keep their leases over it. What the
kernel adds and drops by itself, the leases, is no part of what is compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from paraglider.rules.leases import TABLE
from paraglider.rules.nft import NFT_FAMILY, removal_text
from paraglider.system.changes.base import Action, Host


@dataclass(frozen=True, slots=True)
class LeasesChange:
    """The table of one family.

    ``text`` is the nft input that leads to it, ``saved`` what the kernel made of it (empty until
    it is applied). ``previous`` is the text that this run replaces; it is not stored, for undoing
    removes all.
    """

    kind: ClassVar[str] = "leases"
    family: int
    text: str
    saved: str = ""
    previous: str | None = field(default=None, metadata={"stored": False})

    @property
    def identity(self) -> tuple[str, ...]:
        """The family."""
        return (self.kind, str(self.family))

    def describe(self, action: Action) -> str:
        """The table, and what it is for."""
        name = f"table {NFT_FAMILY[self.family]} {TABLE}"
        if action == "revert":
            return f"{name} removed"
        changed = " in place of another" if action == "apply" and self.previous else ""
        return f"{name}: leases of flows{changed}"

    def script(self, host: Host) -> str:
        """nft(8) with its input."""
        return f"nft -f - <<'END'\n{self.text}END\n"

    def revert_script(self, host: Host) -> str:
        """nft(8)."""
        if not host.nft.held(self.family, TABLE):
            return ""
        return f"nft -f - <<'END'\n{removal_text(self.family, TABLE)}END\n"

    def apply(self, host: Host) -> None:
        """Bring the kernel to the text."""
        host.nft.load(self.text)

    def revert(self, host: Host) -> None:
        """Back to the previous text, or to none at all."""
        if self.previous is not None:
            host.nft.load(self.previous)
        else:
            host.nft.remove(self.family, TABLE)

    def settled(self, host: Host) -> LeasesChange:
        """The same with what the kernel made of the text."""
        return replace(self, saved=host.nft.held(self.family, TABLE))

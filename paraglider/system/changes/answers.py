"""The table of a backend's host by which answers leave as the VIP, as a change.

Rules: what is replaced is replaced in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from paraglider.rules.nft import NFT_FAMILY, removal_text
from paraglider.system.changes.base import Action, Host


@dataclass(frozen=True, slots=True)
class AnswersChange:
    """The table called ``table`` of one service.

    ``text`` is the nft input that leads to it, ``saved`` what the kernel made of it (empty until
    it is applied). ``previous`` is the text that this run replaces; it is not stored, for undoing
    removes all.
    """

    kind: ClassVar[str] = "answers"
    family: int
    table: str
    text: str
    saved: str = ""
    previous: str | None = field(default=None, metadata={"stored": False})

    @property
    def identity(self) -> tuple[str, ...]:
        """Family and table."""
        return (self.kind, str(self.family), self.table)

    def describe(self, action: Action) -> str:
        """The table."""
        name = f"table {NFT_FAMILY[self.family]} {self.table}"
        if action == "revert":
            return f"{name} removed"
        changed = " in place of another" if action == "apply" and self.previous is not None else ""
        return f"{name}: answers leave as the VIP{changed}"

    def script(self, host: Host) -> str:
        """nft(8) with its input."""
        return _fed(self.text)

    def revert_script(self, host: Host) -> str:
        """nft(8) with its input."""
        return _fed(removal_text(self.family, self.table))

    def apply(self, host: Host) -> None:
        """Bring the kernel to the text."""
        host.nft.load(self.text)

    def revert(self, host: Host) -> None:
        """Back to the previous text, or to none at all."""
        if self.previous is not None:
            host.nft.load(self.previous)
        else:
            host.nft.remove(self.family, self.table)

    def settled(self, host: Host) -> AnswersChange:
        """The same with what the kernel made of the text."""
        return replace(self, saved=host.nft.held(self.family, self.table))


def _fed(text: str) -> str:
    return f"nft -f - <<'END'\n{text}END\n"

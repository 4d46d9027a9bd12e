"""Changes of nft tables that are replaced as a whole.

Lives here: ``ReplacedTable``, and its kinds ``OptionalTableChange`` (one table per family, which a
host may lack) and ``AnswersChange`` (the host of a backend of ``return: direct``, one table per
service); ``fed``.
Rules: a table is replaced in one transaction. Elements that the kernel adds and removes itself,
such as leases, are not compared, and flows keep them over a change.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from paraglider.forward.host_needs import NftTable
from paraglider.host.changes.base import Action, Host
from paraglider.netfilter.rules.nft import NFT_FAMILY, removal_text


@dataclass(frozen=True, slots=True)
class ReplacedTable:
    """The table called ``table``.

    ``text`` is the nft input for it, ``saved`` the kernel's listing of it (empty until it is
    applied). ``previous`` is the text that this run replaces; it is not stored, because the undo
    removes the table. ``does`` is the purpose of the table; with ``terse`` the elements of its sets
    are left out of ``saved``.
    """

    kind: ClassVar[str]
    family: int
    table: str
    text: str
    saved: str = ""
    previous: str | None = field(default=None, metadata={"stored": False})
    does: str = ""
    terse: bool = field(default=False, metadata={"stored": False})

    @property
    def identity(self) -> tuple[str, ...]:
        """Family and table."""
        return (self.kind, str(self.family), self.table)

    def describe(self, action: Action) -> str:
        """The table, and its purpose."""
        name = f"table {NFT_FAMILY[self.family]} {self.table}"
        if action == "revert":
            return f"{name} removed"
        changed = " in place of another" if action == "apply" and self.previous is not None else ""
        return f"{name}: {self.does}{changed}"

    def script(self, host: Host) -> str:
        """nft(8) with its input."""
        return fed(self.text)

    def revert_script(self, host: Host) -> str:
        """nft(8); nothing where the table is gone."""
        if not host.nft.held(self.family, self.table, terse=self.terse):
            return ""
        return fed(removal_text(self.family, self.table))

    def apply(self, host: Host) -> None:
        """Load the text."""
        host.nft.load(self.text)

    def revert(self, host: Host) -> None:
        """Load the previous text, or remove the table."""
        if self.previous is not None:
            host.nft.load(self.previous)
        else:
            host.nft.remove(self.family, self.table)

    def settled(self, host: Host) -> Self:
        """The same with the kernel's listing of the table."""
        return replace(self, saved=host.nft.held(self.family, self.table, terse=self.terse))


@dataclass(frozen=True, slots=True)
class OptionalTableChange(ReplacedTable):
    """A table that a host may lack (``forward.optional_tables``).

    With ``terse``, elements of sets, which packets add, are not read. Records of earlier versions
    lack ``does`` and ``terse``, and may be of tables of both kinds.
    """

    kind: ClassVar[str] = "optional_table"
    does: str = ""
    terse: bool = True

    @classmethod
    def of(cls, family: int, table: NftTable) -> OptionalTableChange:
        """The change that makes ``table`` of ``family`` (4 or 6)."""
        return cls(family, table.name, table.text, does=table.does, terse=table.terse)


@dataclass(frozen=True, slots=True)
class AnswersChange(ReplacedTable):
    """The table of one service on a backend's host (``rules.backend``)."""

    kind: ClassVar[str] = "answers"
    does: str = field(default="answers leave as the VIP", metadata={"stored": False})

    def revert_script(self, host: Host) -> str:
        """nft(8), also if the table does not exist yet: it ends a script for a person."""
        return fed(removal_text(self.family, self.table))


def fed(text: str) -> str:
    """A shell command that runs nft with ``text`` as its input."""
    return f"nft -f - <<'END'\n{text}END\n"

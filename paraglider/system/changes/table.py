"""The table of ``forward: offload`` of one family, as a change.

Rules: what is replaced is replaced in one transaction; connections to backends that are no longer
in it are forgotten by conntrack, so that their clients learn at once that they have to begin anew,
and so are those that began when it was not there, which would stay without a backend.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from paraglider.rules.nft import NFT_FAMILY, TABLE, removal_text
from paraglider.system.changes.base import Action, Host


@dataclass(frozen=True, slots=True)
class TableChange:
    """The table of one family.

    ``text`` is the nft input that leads to it, ``marks`` those of its backends, ``datagrams`` its
    UDP ports (VIP, first, last), ``saved`` what the kernel made of it (empty until it is applied).
    ``previous`` is what this run replaces,
    text and marks; it is not stored, for undoing removes all.
    """

    kind: ClassVar[str] = "table"
    family: int
    text: str
    marks: list[int]
    datagrams: list[list[str | int]] = field(default_factory=list)
    saved: str = ""
    previous: tuple[str, list[int]] | None = field(default=None, metadata={"stored": False})

    @property
    def identity(self) -> tuple[str, ...]:
        """The family."""
        return (self.kind, str(self.family))

    @property
    def gone(self) -> list[int]:
        """The marks of the backends that are no longer there."""
        return sorted(set(self.previous[1]) - set(self.marks)) if self.previous else []

    def describe(self, action: Action) -> str:
        """The family, how many backends, and how many are no longer there."""
        name = f"table {NFT_FAMILY[self.family]} {TABLE}"
        if action == "revert":
            return f"{name} removed"
        gone = f", {len(self.gone)} gone" if action == "apply" and self.gone else ""
        changed = " in place of another" if action == "apply" and self.previous else ""
        count = f"{len(self.marks)} backend" + ("" if len(self.marks) == 1 else "s")
        return f"{name}: {count}{gone}{changed}"

    def script(self, host: Host) -> str:
        """nft(8) with its input, and conntrack(8)."""
        return _fed(self.text) + "".join(_forget(mark) for mark in self.gone)

    def revert_script(self, host: Host) -> str:
        """nft(8) and conntrack(8)."""
        removal = _fed(removal_text(self.family)) if host.nft.held(self.family) else ""
        return removal + "".join(_forget(mark) for mark in self.marks)

    def apply(self, host: Host) -> None:
        """Bring the kernel to the text, then forget the connections to what is gone."""
        host.nft.load(self.text)
        host.conntrack.forget(self.gone)
        for vip, first, last in self.datagrams:
            host.conntrack.forget_untranslated(str(vip), int(first), int(last))

    def revert(self, host: Host) -> None:
        """Back to the previous text, or to none at all."""
        if self.previous is not None:
            host.nft.load(self.previous[0])
            return
        host.nft.remove(self.family)
        host.conntrack.forget(self.marks)

    def settled(self, host: Host) -> TableChange:
        """The same with what the kernel made of the text."""
        return replace(self, saved=host.nft.held(self.family))


def _fed(text: str) -> str:
    return f"nft -f - <<'END'\n{text}END\n"


def _forget(mark: int) -> str:
    return f"conntrack -D --mark 0x{mark:08x}\n"

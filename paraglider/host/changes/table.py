"""Our nft table of one family, of ``forward: offload`` or of ``start``, as a change.

Rules: what is replaced is replaced in one transaction. A connection is its service's by VIP,
protocol, port and backend (``rules.claims``): where these are still served and the mark is another,
it gets that. With a daemon, connections to backends that are no longer in the table are forgotten
by conntrack, so that their clients learn at once that they have to begin anew; where the kernel
balances alone TCP's go on for as long as something is started, and others, whose client may never
change its port, go to another backend. In both cases those are forgotten that began when the table
was not there, which would stay without a backend, and, when it goes, all that it served.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from paraglider.forward.static.rules import COUNTED
from paraglider.host.changes.base import Action, Host
from paraglider.host.changes.replaced_table import fed
from paraglider.netfilter.conntrack import Entry
from paraglider.netfilter.rules.claims import Claims
from paraglider.netfilter.rules.marks import FAMILY_MASK, family_mark
from paraglider.netfilter.rules.nft import (
    CARRIED,
    NFT_FAMILY,
    TABLE,
    UNANSWERED,
    removal_text,
    without_counters,
)


@dataclass(frozen=True, slots=True)
class TableChange:
    """The table of one family.

    ``text`` is the nft input that leads to it, ``marks`` those of its backends, ``datagrams`` its
    UDP ports (VIP, first, last), ``saved`` what the kernel made of it (empty until it is applied).
    ``served`` is what the marks stand for, where the kernel balances alone; empty with a daemon.
    ``claims`` tell which of the marks a connection has. ``previous`` is what this run replaces,
    text and marks; ``held`` tells that the kernel holds just that but for the hash of the daemon.
    None of these is stored, for undoing removes all.
    """

    kind: ClassVar[str] = "table"
    family: int
    text: str
    marks: list[int]
    datagrams: list[list[str | int]] = field(default_factory=list)
    saved: str = ""
    served: list[dict[str, Any]] = field(default_factory=list)
    claims: Claims | None = field(default=None, compare=False, metadata={"stored": False})
    previous: tuple[str, list[int]] | None = field(default=None, metadata={"stored": False})
    held: bool = field(default=False, metadata={"stored": False})

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

    @property
    def input(self) -> str:
        """What nft is fed: the text, and the removal of what it leaves of the previous one."""
        return self.text + self._rest(self.gone)

    def rehearse(self, host: Host) -> None:
        """Raises ``PlatformError`` when the kernel cannot do it."""
        if self.previous is not None and self.held:
            host.nft.rehearse_change(self.previous[0], self.input, (UNANSWERED,))
        else:
            host.nft.rehearse(self.input)

    def script(self, host: Host) -> str:
        """nft(8) with its input, and conntrack(8)."""
        return fed(self.input) + "".join(_forget(mark) for mark in self._forgotten)

    def revert_script(self, host: Host) -> str:
        """nft(8) and conntrack(8)."""
        removal = fed(removal_text(self.family)) if host.nft.held(self.family) else ""
        if self.served:
            return f"{removal}{_forget(family_mark(self.family), FAMILY_MASK)}"
        return removal + "".join(_forget(mark) for mark in self.marks)

    def apply(self, host: Host) -> None:
        """Bring the kernel to the text, then mark connections anew, and forget those that must
        begin anew.
        """
        if self.previous is not None and self.held:
            host.nft.change(self.previous[0], self.input, (UNANSWERED,))
        else:
            host.nft.load(self.input)
        if self.gone and self.claims is not None:
            host.conntrack.mark_anew(frozenset(self.gone), self._owner)
        if self.gone and self.served:
            host.conntrack.forget_passing(frozenset(self.gone))
        host.conntrack.forget(self._forgotten)
        for vip, first, last in self.datagrams:
            host.conntrack.forget_untranslated(str(vip), int(first), int(last))

    def revert(self, host: Host) -> None:
        """Back to the previous text, or to none at all."""
        if self.previous is not None:
            text, marks = self.previous
            host.nft.load(text + self._rest(sorted(set(self.marks) - set(marks))))
            return
        host.nft.remove(self.family)
        if self.served:
            # Those of backends that had left before, too.
            host.conntrack.forget([family_mark(self.family)], FAMILY_MASK)
        else:
            host.conntrack.forget(self.marks)

    def _owner(self, entry: Entry) -> int | None:
        if self.claims is None:
            return None
        ends = (entry.vip, entry.port, entry.backend, entry.backend_port)
        return self.claims.mark(entry.protocol, *ends)

    @property
    def _forgotten(self) -> list[int]:
        return [] if self.served else self.gone

    def _rest(self, marks: list[int]) -> str:
        return without_counters(self.family, marks, COUNTED if self.served else CARRIED)

    def settled(self, host: Host) -> TableChange:
        """The same with what the kernel made of the text."""
        return replace(self, saved=host.nft.held(self.family))


def set_up(saved: str) -> str:
    """What the kernel holds of a table as the set-up left it: without the hash, which follows the
    states of backends.
    """
    lines = saved.splitlines()
    hashed = f'"chain": "{UNANSWERED}"'
    return "\n".join(line for line in lines if not (line.startswith("rule ") and hashed in line))


def _forget(mark: int, mask: int = 0) -> str:
    return f"conntrack -D --mark 0x{mark:08x}{f'/0x{mask:08x}' if mask else ''}\n"

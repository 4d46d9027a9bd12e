"""Our nft table of one family, of ``forward: offload`` or of ``start``, as a change.

Rules: the table is replaced in one transaction. A connection belongs to a service by VIP, protocol,
port and backend (``rules.claims``); if that service's mark changed, the connection is re-marked.
With a daemon, conntrack entries of removed backends are deleted, so that their clients notice at
once. In a static set-up TCP connections to removed backends continue, while other flows, whose
client may never change its port, move to another backend. In both cases entries that are older
than the table are deleted, because they would stay without a backend; removing the table deletes
all its entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from paraglider.forward.static.rules import COUNTED as STATIC_COUNTED
from paraglider.host.changes.base import Action, Host
from paraglider.host.changes.replaced_table import fed
from paraglider.netfilter.conntrack import Entry
from paraglider.netfilter.rules.claims import Claims
from paraglider.netfilter.rules.marks import FAMILY_MASK, family_mark
from paraglider.netfilter.rules.nft import (
    COUNTED,
    FOLLOWING,
    NFT_FAMILY,
    TABLE,
    removal_text,
    without_counters,
)


@dataclass(frozen=True, slots=True)
class TableChange:
    """The table of one family.

    ``text`` is the nft input that creates it, ``marks`` the marks of its backends, ``datagrams``
    its UDP ports (VIP, first, last), ``saved`` the kernel's form of it (empty until it is applied).
    ``served`` are the services of a static set-up; empty with a daemon. ``claims`` finds the mark
    of a connection. ``previous`` is the text and marks that this run replaces; ``held`` is whether
    the kernel has exactly that, apart from the rules that the daemon changes. The last three are
    not stored, because the undo removes the table.
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
        """The marks of the removed backends."""
        return sorted(set(self.previous[1]) - set(self.marks)) if self.previous else []

    def describe(self, action: Action) -> str:
        """The family, and the numbers of backends and of removed ones."""
        name = f"table {NFT_FAMILY[self.family]} {TABLE}"
        if action == "revert":
            return f"{name} removed"
        gone = f", {len(self.gone)} gone" if action == "apply" and self.gone else ""
        changed = " in place of another" if action == "apply" and self.previous else ""
        count = f"{len(self.marks)} backend" + ("" if len(self.marks) == 1 else "s")
        return f"{name}: {count}{gone}{changed}"

    @property
    def input(self) -> str:
        """nft's input: the text, and the removal of the previous table's leftovers."""
        return self.text + self._rest(self.gone)

    def rehearse(self, host: Host) -> None:
        """Raise ``PlatformError`` when the kernel refuses the table."""
        if self.previous is not None and self.held:
            host.nft.rehearse_change(self.previous[0], self.input, FOLLOWING)
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
        """Load the text, re-mark connections, and delete those of removed backends."""
        if self.previous is not None and self.held:
            host.nft.change(self.previous[0], self.input, FOLLOWING)
        else:
            host.nft.load(self.input)
        if self.gone and self.claims is not None:
            host.conntrack.remark(frozenset(self.gone), self._owner)
        if self.gone and self.served:
            host.conntrack.forget_passing(frozenset(self.gone))
        host.conntrack.forget(self._forgotten)
        for vip, first, last in self.datagrams:
            host.conntrack.forget_untranslated(str(vip), int(first), int(last))

    def revert(self, host: Host) -> None:
        """Load the previous text, or remove the table."""
        if self.previous is not None:
            text, marks = self.previous
            host.nft.load(text + self._rest(sorted(set(self.marks) - set(marks))))
            return
        host.nft.remove(self.family)
        if self.served:
            # Including those of backends that were removed earlier.
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
        return without_counters(self.family, marks, STATIC_COUNTED if self.served else COUNTED)

    def settled(self, host: Host) -> TableChange:
        """This change with the kernel's form of the table."""
        return replace(self, saved=host.nft.held(self.family))


def set_up(saved: str) -> str:
    """The kernel's form of a table without the rules that follow the states of backends."""
    chains = [f'"chain": "{name}"' for name in FOLLOWING]

    def follows(line: str) -> bool:
        return line.startswith("rule ") and any(chain in line for chain in chains)

    return "\n".join(line for line in saved.splitlines() if not follows(line))


def _forget(mark: int, mask: int = 0) -> str:
    return f"conntrack -D --mark 0x{mark:08x}{f'/0x{mask:08x}' if mask else ''}\n"

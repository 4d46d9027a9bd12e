"""Our rules in iptables-legacy's filter table, on hosts that use it beside iptables-nft.

A packet passes both: a packet that the legacy tables drop is lost even if iptables-nft accepts it.
The rules that accept balanced packets are therefore needed in the legacy table too.

Rules: only if the legacy filter table exists; only our own chains and the jumps to them; the table
itself is not removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from paraglider.host.changes.base import Action, Host
from paraglider.host.changes.ruleset import fed
from paraglider.netfilter.rules.ruleset import restore_text
from paraglider.netfilter.rules.saved import removal_text


@dataclass(frozen=True, slots=True)
class LegacyChange:
    """Fields as in ``ruleset.RulesChange``."""

    kind: ClassVar[str] = "legacy rules"
    family: int
    text: str
    saved: str = ""
    previous: str | None = field(default=None, metadata={"stored": False})

    @property
    def identity(self) -> tuple[str, ...]:
        """The family."""
        return (self.kind, str(self.family))

    def describe(self, action: Action) -> str:
        """The family."""
        end = " removed" if action == "revert" else ""
        return f"rules of iptables-legacy for IPv{self.family}{end}"

    def script(self, host: Host) -> str:
        """iptables-legacy-restore with its input."""
        return fed(host.legacy.restore_command(self.family), self._adapted(self.text, host))

    def revert_script(self, host: Host) -> str:
        """iptables-legacy-restore with its input."""
        text = removal_text(host.legacy.saved(self.family))
        return fed(host.legacy.restore_command(self.family), text)

    def apply(self, host: Host) -> None:
        """Restore the text over any version of our rules."""
        host.legacy.restore(self.family, self._adapted(self.text, host))

    def revert(self, host: Host) -> None:
        """Restore the previous text, or remove our rules."""
        if self.previous is not None:
            host.legacy.restore(self.family, self._adapted(self.previous, host))
        else:
            host.legacy.remove_ours(self.family)

    def settled(self, host: Host) -> LegacyChange:
        """This change with the kernel's form of the rules."""
        return replace(self, saved=host.legacy.ours(self.family))

    def _adapted(self, text: str, host: Host) -> str:
        return restore_text(text, host.legacy.saved(self.family))

"""Our part of iptables-legacy's filter, where iptables is iptables-nft and both are in use.

A packet passes both: what the policy or a rule of the legacy tables drops is dropped, whatever
iptables-nft accepts. So the part of our rules that lets balanced packets pass is there too.

Rules: only where the legacy filter table is there already; only chains of ours and the jumps to
them; the table itself stays.
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
    """Fields as of ``ruleset.RulesChange``."""

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
        """Bring the kernel to the text, from whatever it holds of ours."""
        host.legacy.restore(self.family, self._adapted(self.text, host))

    def revert(self, host: Host) -> None:
        """Back to the previous text, or to none at all."""
        if self.previous is not None:
            host.legacy.restore(self.family, self._adapted(self.previous, host))
        else:
            host.legacy.remove_ours(self.family)

    def settled(self, host: Host) -> LegacyChange:
        """The same with what the kernel made of the text."""
        return replace(self, saved=host.legacy.ours(self.family))

    def _adapted(self, text: str, host: Host) -> str:
        return restore_text(text, host.legacy.saved(self.family))

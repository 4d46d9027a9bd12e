"""The iptables rules of one family, as a change.

Rules: the rules are replaced in one run of iptables-restore. The revert removes all our rules and,
with iptables-nft, the built-in chains and tables that were created with them.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from typing import ClassVar

from paraglider.host.changes.base import Action, Host
from paraglider.netfilter.iptables import Tables
from paraglider.netfilter.rules.ruleset import restore_text
from paraglider.netfilter.rules.saved import removal_text


@dataclass(frozen=True, slots=True)
class RulesChange:
    """The rules of one family.

    ``text`` is the rule set, ``before`` the tables and chains of iptables-nft before the set-up,
    ``saved`` the kernel's form of the text (empty until it is applied). ``previous`` is the text
    that this run replaces; it is not stored, because the undo removes all rules.
    """

    kind: ClassVar[str] = "rules"
    family: int
    text: str
    before: Tables | None
    saved: str = ""
    previous: str | None = field(default=None, metadata={"stored": False})

    @property
    def identity(self) -> tuple[str, ...]:
        """The family."""
        return (self.kind, str(self.family))

    def describe(self, action: Action) -> str:
        """The family and the number of rules."""
        if action == "revert":
            return f"rules for IPv{self.family} removed"
        count = sum(line.startswith("-") for line in self.text.splitlines())
        changed = " in place of others" if action == "apply" and self.previous is not None else ""
        return f"rules for IPv{self.family}: {count}{changed}"

    def script(self, host: Host) -> str:
        """iptables-restore with its input."""
        return fed(
            host.netfilter.restore_command(self.family),
            restore_text(self.text, host.netfilter.saved(self.family)),
        )

    def revert_script(self, host: Host) -> str:
        """iptables-restore and nft with their input."""
        return removal_script(self.family, host) + fed(
            ["nft", "-f", "-"], host.netfilter.unused_text(self.family, self.before)
        )

    def apply(self, host: Host) -> None:
        """Restore the text over any version of our rules."""
        _restore(self.family, self.text, host)

    def revert(self, host: Host) -> None:
        """Restore the previous text, or remove our rules."""
        if self.previous is not None:
            _restore(self.family, self.previous, host)
            return
        host.netfilter.remove_ours(self.family)
        host.netfilter.remove_unused(self.family, self.before)

    def settled(self, host: Host) -> RulesChange:
        """This change with the kernel's form of the rules."""
        return replace(self, saved=host.netfilter.ours(self.family))


def removal_script(family: int, host: Host) -> str:
    """The command that removes all our rules of ``family``; empty if there are none."""
    return fed(host.netfilter.restore_command(family), removal_text(host.netfilter.saved(family)))


def _restore(family: int, text: str, host: Host) -> None:
    host.netfilter.restore(family, restore_text(text, host.netfilter.saved(family)))


def fed(command: list[str], text: str) -> str:
    """A shell command that runs ``command`` with ``text`` as its input; empty without ``text``."""
    return f"{shlex.join(command)} <<'END'\n{text}END\n" if text else ""

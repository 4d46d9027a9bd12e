"""What every change can do, and the edges of the platform that it does it through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from paraglider.host.netlink import Netlink
from paraglider.host.routing import Routing
from paraglider.host.sysctl import Sysctl
from paraglider.netfilter.conntrack import Conntrack
from paraglider.netfilter.iptables import LegacyNetfilter, Netfilter
from paraglider.netfilter.nft import Nft

Action = Literal["apply", "revert", "keep"]
"""What is to be done with a change: make it, take it back, leave it as it is."""


@dataclass(frozen=True, slots=True)
class Host:
    """The edges through which changes are made; tests put their own in."""

    netfilter: Netfilter = field(default_factory=Netfilter)
    netlink: Netlink = field(default_factory=Netlink)
    sysctl: Sysctl = field(default_factory=Sysctl)
    nft: Nft = field(default_factory=Nft)
    conntrack: Conntrack = field(default_factory=Conntrack)
    routing: Routing = field(default_factory=Routing)
    legacy: LegacyNetfilter = field(default_factory=LegacyNetfilter)


class Change(Protocol):
    """One thing that the set-up alters."""

    kind: ClassVar[str]

    @property
    def family(self) -> int:
        """4 or 6: the family that the change serves."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Kind and name of the thing, equal for all changes of it."""

    def describe(self, action: Action) -> str:
        """What ``action`` amounts to, on one line."""

    def script(self, host: Host) -> str:
        """The commands that ``apply`` amounts to, as a person would type them."""

    def revert_script(self, host: Host) -> str:
        """The commands that ``revert`` amounts to."""

    def apply(self, host: Host) -> None:
        """Make the change; raises ``PlatformError``."""

    def revert(self, host: Host) -> None:
        """Put back what was there before; raises ``PlatformError``."""

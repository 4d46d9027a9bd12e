"""The interface of all changes, and the edges of the platform that they use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from paraglider.host.decapsulation import Decapsulation
from paraglider.host.netlink import Netlink
from paraglider.host.routing import Routing
from paraglider.host.sysctl import Sysctl
from paraglider.host.tunnel_devices import TunnelDevices
from paraglider.netfilter.conntrack import Conntrack
from paraglider.netfilter.iptables import Iptables, LegacyIptables
from paraglider.netfilter.nft import Nft

Action = Literal["apply", "revert", "keep"]
"""What to do with a change: apply it, revert it, or keep it."""


@dataclass(frozen=True, slots=True)
class Host:
    """The edges of the platform; tests replace them."""

    netfilter: Iptables = field(default_factory=Iptables)
    netlink: Netlink = field(default_factory=Netlink)
    sysctl: Sysctl = field(default_factory=Sysctl)
    nft: Nft = field(default_factory=Nft)
    conntrack: Conntrack = field(default_factory=Conntrack)
    routing: Routing = field(default_factory=Routing)
    legacy: LegacyIptables = field(default_factory=LegacyIptables)
    decapsulation: Decapsulation = field(default_factory=Decapsulation)
    tunnel_devices: TunnelDevices = field(default_factory=TunnelDevices)


class Change(Protocol):
    """One object that the set-up changes."""

    kind: ClassVar[str]

    @property
    def family(self) -> int:
        """The address family of the change, 4 or 6."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Kind and name of the object, equal for all changes of it."""

    def describe(self, action: Action) -> str:
        """The effect of ``action``, on one line."""

    def script(self, host: Host) -> str:
        """The shell commands equivalent to ``apply``."""

    def revert_script(self, host: Host) -> str:
        """The shell commands equivalent to ``revert``."""

    def apply(self, host: Host) -> None:
        """Make the change; raises ``PlatformError``."""

    def revert(self, host: Host) -> None:
        """Restore the value before the change; raises ``PlatformError``."""

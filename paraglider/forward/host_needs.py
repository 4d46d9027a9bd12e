"""The host settings that a forward method needs, as values; ``paraglider.host`` applies them.

Lives here: entries of the kernel's routing (``Route``, ``PolicyRule``, ``ProxyEntry``), sysctls
(``SysctlNeed``), optional nft tables (``NftTable``), and ``HostNeeds``, what
``ForwardMethod.host_needs`` returns.
Rules: pure; nothing here touches the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from paraglider.config.types import IPAddress

MAIN: Final = 254  # RT_TABLE_MAIN, linux/rtnetlink.h


@dataclass(frozen=True, slots=True)
class Route:
    """A route to one address in the main table, or the default of a table of ours, ``via`` a
    neighbour.
    """

    interface: str
    address: IPAddress | None = None
    table: int = MAIN
    via: IPAddress | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        some = self.address or self.via
        assert some is not None  # noqa: S101 - a route to nowhere through nobody
        return some.version

    def __str__(self) -> str:
        """The arguments of `ip route add`, or `ip -6 route add`."""
        words = [str(self.address or "default")]
        if self.via is not None:
            words += ["via", str(self.via)]
        words += ["dev", self.interface]
        if self.table != MAIN:
            words += ["table", f"0x{self.table:x}"]
        if self.via is not None:
            words.append("onlink")
        return " ".join(words)


class PolicyRule(NamedTuple):
    """Packets of ``family`` with ``mark`` (under ``mask``) are routed by ``table``."""

    family: int
    mark: int
    mask: int
    table: int
    priority: int


class ProxyEntry(NamedTuple):
    """``interface`` answers ARP or neighbour solicitations for ``address``."""

    interface: str
    address: IPAddress


RoutingEntry = Route | PolicyRule | ProxyEntry


class SysctlNeed(NamedTuple):
    """Set the parameter ``key`` (its path below /proc/sys) to ``value``.

    ``optional``: ignored if it cannot be written. ``unless`` is a parameter that makes it
    unnecessary if it has the same value.
    """

    key: str
    value: str
    optional: bool = False
    unless: str | None = None


class NftTable(NamedTuple):
    """An optional nft table of one family: its ``name``, the nft input that makes it, what it
    ``does``, in words.

    ``terse``: packets fill its sets, so their elements are not compared. ``lacking`` is the message
    if the kernel or nft does not support it; empty: no message.
    """

    name: str
    text: str
    does: str
    terse: bool = False
    lacking: str = ""


class HostNeeds(NamedTuple):
    """Sysctls, and routing entries in the order in which they are added."""

    sysctls: tuple[SysctlNeed, ...] = ()
    routing: tuple[RoutingEntry, ...] = ()

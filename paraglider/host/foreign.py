"""Finds forward chains of other firewalls that drop balanced packets.

Lives here: ``Blocked``, and ``blocked``, which lists the chains and their rules with nft.
Rules: only reads. Our own tables are skipped, and tables without a filter on the forward hook are
not listed. A chain is reported only if it certainly drops the packets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from paraglider.config.model import Config
from paraglider.errors import ParagliderError
from paraglider.forward import registry
from paraglider.forward.optional_tables import table_names
from paraglider.netfilter.nft import listed
from paraglider.netfilter.rules.foreign import Passing, is_dropped

_FAMILIES: Final = {4: ("ip", "inet"), 6: ("ip6", "inet")}


@dataclass(frozen=True, slots=True)
class Blocked:
    """The chain ``family table name`` drops ``packet`` of services with ``forward``, over the IP
    ``versions``.
    """

    family: str
    table: str
    name: str
    forward: str
    packet: Passing
    versions: tuple[int, ...]

    @property
    def chain(self) -> str:
        """The chain in nft's syntax."""
        return f"{self.family} {self.table} {self.name}"

    def __str__(self) -> str:
        """The effect, and the remedy."""
        which = " and ".join(f"IPv{version}" for version in self.versions)
        return (
            f"this chain of another firewall drops {self.packet.what} (`forward: {self.forward}`,"
            f" {which}); let them pass: nft insert rule {self.chain} {self.packet.match} accept"
        )


def blocked(config: Config) -> list[Blocked]:
    """The forward chains of others that drop packets of the services of ``config``.

    Needs CAP_NET_ADMIN; raises ``ParagliderError`` where nft is missing or fails.
    """
    found: list[Blocked] = []
    for family, table, name in _forward_chains():
        listing = listed(["list", "table", family, table])
        for method in registry.methods():
            versions = {s.family for s in config.services if s.method is method}
            seen = tuple(sorted(v for v in versions if family in _FAMILIES[v]))
            hit = next((p for p in method.passing if seen and is_dropped(listing, name, p)), None)
            if hit is not None:
                found.append(Blocked(family, table, name, method.name, hit, seen))
    return found


def _forward_chains() -> Iterator[tuple[str, str, str]]:
    for item in listed(["list", "chains"]):
        chain = item.get("chain", {})
        if (
            chain.get("hook") == "forward"
            and chain.get("type") == "filter"
            and chain.get("family") in ("ip", "ip6", "inet")
            and chain.get("table") not in table_names()
        ):
            yield chain["family"], chain["table"], chain["name"]


def seen_from_here(config: Config) -> list[Blocked]:
    """As ``blocked``; empty without nft or the right to list the chains."""
    try:
        return blocked(config)
    except ParagliderError:
        return []

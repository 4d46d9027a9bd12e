"""A set of networks with a membership test whose cost does not depend on their number.

Rules: pure; both families in one object.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from paraglider.config.types import IPAddress


class Networks:
    """A set of networks, with one look-up per prefix length."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            held = self._by_length.setdefault((network.version, shift), set())
            held.add(int(network.network_address) >> shift)

    def __contains__(self, address: IPAddress) -> bool:
        """Whether ``address`` is in one of them."""
        number = int(address)
        return any(
            version == address.version and number >> shift in held
            for (version, shift), held in self._by_length.items()
        )

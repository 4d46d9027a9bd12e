"""Rules for many addresses, arranged so that a packet meets few of them.

iptables checks the rules of a chain one by one, so with hundreds of backends a reply would meet
hundreds of rules, twice, and with hundreds of VIPs a request. Here the rules are put into chains by
the networks of their addresses: a packet meets one rule per network, and then those of its own
network.

    -s 10.0.0.0/28 -j NAME-0        and in NAME-0:   -s 10.0.0.1 … -g TARGET
    -s 10.0.0.16/28 -j NAME-1                        -s 10.0.0.2 … -g TARGET

Rules: pure. The same addresses give the same chains, in any order. A packet that matches no rule of
its network's chain returns to the calling chain; so does a packet that TARGET does not end. If the
calling chain has further rules that such packets should not meet, these are in a chain of their
own, ``rest``: then the network's chain is entered by goto, and ends in a goto to ``rest``.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from paraglider.config.types import IPAddress
from paraglider.netfilter.rules.ruleset import Chain

FEW = 24
"""Rules that stay where they are: chains would save little."""

Match = tuple[IPAddress, str]
"""An address, and a match that begins with it."""


def branched(
    name: str,
    matches: Sequence[Match],
    target: str,
    side: Literal["-s", "-d"] = "-s",
    rest: str | None = None,
) -> tuple[tuple[str, ...], tuple[Chain, ...]]:
    """``rest`` is the chain that the caller's chain continues in (see the head of this file)."""
    bits = _network_bits([address for address, _ in matches])
    if len(matches) <= FEW or bits is None:
        return tuple(_rule(match, target) for match in matches), ()
    networks: dict[int, list[Match]] = {}
    for match in matches:
        networks.setdefault(_shifted(match[0], bits), []).append(match)
    rules: list[str] = []
    chains: list[Chain] = []
    for _, inside in sorted(networks.items()):
        inside.sort(key=lambda match: int(match[0]))
        if len(inside) == 1:
            rules.append(_rule(inside[0], target))
            continue
        network = ipaddress.ip_network((inside[0][0], bits), strict=False)
        chain = f"{name}-{len(chains)}"
        rules.append(f"{side} {network} {'-j' if rest is None else '-g'} {chain}")
        selected = [_rule(match, target) for match in inside]
        selected += [] if rest is None else [f"-g {rest}"]
        chains.append(Chain(chain, f"those of {network}", tuple(selected)))
    return tuple(rules), tuple(chains)


def _rule(match: Match, target: str) -> str:
    return f"{match[1]} -g {target}"


def _network_bits(addresses: Sequence[IPAddress]) -> int | None:
    """The prefix length of the networks with which a packet meets the fewest rules; None if chains
    would not reduce them.
    """
    if not addresses:
        return None
    best, fewest = None, len(addresses)
    length = addresses[0].max_prefixlen
    numbers = [int(address) for address in addresses]
    for bits in range(1, length):
        sizes = Counter([number >> (length - bits) for number in numbers])
        met = len(sizes) + max(sizes.values())
        if met < fewest:
            best, fewest = bits, met
    return best


def _shifted(address: IPAddress, bits: int) -> int:
    return int(address) >> (address.max_prefixlen - bits)

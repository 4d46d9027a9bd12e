"""Many addresses in chains: the same packets are taken, by fewer rules."""

from __future__ import annotations

import ipaddress
import random

from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.types import IPAddress
from paraglider.netfilter.rules.prefix_chains import FEW, Match, branched
from paraglider.netfilter.rules.ruleset import Chain

NAME, TARGET = "OF", "THERE"

few = st.integers(0, 40).map(lambda end: ipaddress.IPv4Address(0x0A000000 + end))
near = st.integers(0, 2000).map(lambda end: ipaddress.IPv4Address(0x0A000000 + end))
far = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
six = st.integers(0, 3000).map(lambda end: ipaddress.IPv6Address((0xFD << 120) + end * 7919))
addresses = st.one_of(
    *(st.lists(st.tuples(kind, st.integers(1, 3)), max_size=200) for kind in (few, near, far, six))
)


def matches_of(ends: list[tuple[IPAddress, int]]) -> list[Match]:
    """A match of each address and port, without duplicates."""
    return [(a, f"-s {a} -p tcp -m tcp --sport {port}") for a, port in dict.fromkeys(ends)]


def walk(
    rules: tuple[str, ...], chains: tuple[Chain, ...], address: IPAddress, port: int
) -> tuple[bool, int]:
    """Whether a packet goes to the target, and how many rules it meets until then."""
    met = 0
    for rule in rules:
        met += 1
        words = rule.split()
        if address not in ipaddress.ip_network(words[1]):
            continue
        if "-j" in words:
            (inside,) = (chain.rules for chain in chains if chain.name == words[-1])
            taken, more = walk(inside, (), address, port)
            met += more
            if taken:
                return True, met
        elif words[words.index("--sport") + 1] == str(port):
            assert words[-2:] == ["-g", TARGET]
            return True, met
    return False, met


@given(addresses, st.integers(1, 3))
def test_the_same_packets_are_taken(ends: list[tuple[IPAddress, int]], port: int) -> None:
    """For any addresses: each of them matches, its neighbours do not."""
    rules, chains = branched(NAME, matches_of(ends), TARGET)
    known = set(ends)
    for address, _ in ends:
        for other in (address, type(address)(min(int(address) + 1, address._ALL_ONES))):
            assert walk(rules, chains, other, port)[0] == ((other, port) in known)


@given(addresses, st.randoms(use_true_random=False))
def test_order_does_not_matter(ends: list[tuple[IPAddress, int]], chance: random.Random) -> None:
    """The chains do not depend on the order, so that a re-sorted file changes nothing."""
    matches = sorted(matches_of(ends), key=lambda match: match[1])
    other = list(matches)
    chance.shuffle(other)
    first, chains = branched(NAME, matches, TARGET)
    second, others = branched(NAME, other, TARGET)
    assert sorted(first) == sorted(second)
    assert [chain.name for chain in chains] == [chain.name for chain in others]
    assert [set(chain.rules) for chain in chains] == [set(chain.rules) for chain in others]


def test_few_stay_where_they_are() -> None:
    """Few addresses keep their order, without a chain; so do many ports of one address."""
    one = ipaddress.IPv4Address("10.0.0.1")
    matches = [(one + i, f"-s {one + i} -p tcp") for i in range(FEW)]
    assert branched(NAME, matches, TARGET) == (tuple(f"{m} -g {TARGET}" for _, m in matches), ())
    many = [(one, f"-s {one} -p tcp -m tcp --sport {port}") for port in range(1, 100)]
    assert branched(NAME, many, TARGET) == (tuple(f"{m} -g {TARGET}" for _, m in many), ())


def test_a_thousand_in_a_row_are_met_by_sixty() -> None:
    """No packet meets more rules than about twice the root of their number."""
    first = ipaddress.IPv4Address("10.0.0.0")
    ends: list[tuple[IPAddress, int]] = [(first + i, 1) for i in range(1000)]
    rules, chains = branched(NAME, matches_of(ends), TARGET)
    assert max(walk(rules, chains, address, 1)[1] for address, _ in ends) <= 64
    assert [chain.name for chain in chains] == [f"{NAME}-{i}" for i in range(len(chains))]
    assert walk(rules, chains, ipaddress.IPv4Address("10.9.0.0"), 1) == (False, len(rules))

"""The share of flows that get another balancer or backend when one of them leaves or returns.

``.venv/bin/python -m bench.moved`` prints the tables of docs/fleet.md, which a test compares.
Nothing is sampled: balancers have the parts of the hash that Linux gives to the paths of a route,
and backends have entries of the look-up tables that the balancers use.

Lives here: ``threshold``, ``resilient``, ``of_table``, and ``tables``.
Rules: pure except for the output. Flows are taken to be spread evenly over the hash.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import mean
from typing import Final, NamedTuple

from paraglider.core.pool import Backend
from paraglider.core.strategies import Context, create

BALANCERS: Final = (2, 3, 4, 6, 8, 16, 32, 64)
BACKENDS: Final = (10, 30, 100, 300, 1000)
#: entries of a table: the default, and the most
SIZES: Final = (65_537, 655_373)
#: the kernel's hash has this many bits
_BITS: Final = 31
#: buckets of a resilient group
BUCKETS: Final = 256


class ByThreshold(NamedTuple):
    """Shares of all flows that move when the first, one in the middle or the last of the balancers
    leaves, or returns to its place.
    """

    first: Fraction
    middle: Fraction
    last: Fraction


class OfTable(NamedTuple):
    """Shares of a table's entries that change when a backend leaves, or joins: its own, and others;
    means over several backends.
    """

    own: float
    others: float


def _bounds(paths: int) -> list[int]:
    """The upper bounds of equal paths: net/ipv4/fib_semantics.c, fib_rebalance, and
    net/ipv4/nexthop.c, nh_hthr_group_rebalance; with a half rounded up.
    """
    return [((path << _BITS) + paths // 2) // paths for path in range(1, paths + 1)]


def _owners(paths: Sequence[int]) -> list[tuple[int, int]]:
    """The upper bound of each of ``paths``, with its name."""
    return list(zip(_bounds(len(paths)), paths, strict=True))


def _differing(before: Sequence[int], after: Sequence[int]) -> Fraction:
    """The share of the hash for which two lists of paths have different ones."""
    one, other = _owners(before), _owners(after)
    edges = sorted({bound for bound, _ in (*one, *other)})
    moved = low = 0
    for high in edges:
        owners = {next(name for bound, name in each if bound >= high) for each in (one, other)}
        moved += high - low if len(owners) > 1 else 0
        low = high
    return Fraction(moved, 1 << _BITS)


def threshold(balancers: int) -> ByThreshold:
    """Of a multipath route of Linux over ``balancers``, as BIRD and FRR install it."""
    paths = range(balancers)

    def without(left: int) -> Fraction:
        return _differing(paths, [path for path in paths if path != left])

    return ByThreshold(without(0), without(balancers // 2), without(balancers - 1))


def resilient(balancers: int, buckets: int = BUCKETS) -> Fraction:
    """The largest share that moves when a balancer leaves a resilient group: the buckets of that
    one (net/ipv4/nexthop.c, nh_res_group_rebalance). When it returns, a bucket moves once it has
    been idle for as long as the group's idle_timer.
    """
    ends = [(2 * buckets * n + balancers) // (2 * balancers) for n in range(balancers + 1)]
    return Fraction(max(high - low for low, high in pairwise(ends)), buckets)


def of_table(backends: int, size: int, strategy: str = "maglev") -> OfTable:
    """Of ``backends`` with equal weights and the table of ``strategy`` with ``size`` entries."""
    members = [Backend(f"b{n}", bytes([10, 0, n >> 8, n & 255])) for n in range(backends)]
    whole = _holders(members, size, strategy)
    own, others = [], []
    for gone in (members[0], members[backends // 2], members[-1]):
        less = _holders([each for each in members if each is not gone], size, strategy)
        changed = [one for one, other in zip(whole, less, strict=True) if one is not other]
        own.append(sum(holder is gone for holder in changed) / size)
        others.append(sum(holder is not gone for holder in changed) / size)
    return OfTable(mean(own), mean(others))


def _holders(members: Iterable[Backend], size: int, strategy: str) -> list[Backend]:
    made = create(strategy, Context(seed=7, parameters={"table_size": size}))
    made.prepare(tuple(members))
    table = made.table()
    if table is None:
        raise ValueError(f"{strategy} has no table")
    return list(table.slots)


def _percent(share: Fraction | float) -> str:
    """In percent, with up to two decimals where it is small."""
    value = 100 * float(share)
    decimals = 0 if value >= 9.95 else 1 if value >= 0.095 else 2
    return f"{value:.{decimals}f} %"


def _markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---:"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def balancers_table() -> str:
    """What moves when a balancer leaves or returns."""
    rows = []
    for number in BALANCERS:
        by = threshold(number)
        shares = (Fraction(1, number), *by, resilient(number))
        rows.append([str(number), *map(_percent, shares)])
    titles = ("balancers", "its own flows", "the first", "in the middle", "the last", "resilient")
    return _markdown(titles, rows)


def backends_table() -> str:
    """What moves when a backend leaves or joins."""
    rows = []
    for number in BACKENDS:
        found = [of_table(number, size) for size in SIZES]
        rows.append(
            [str(number), _percent(found[0].own), *(_percent(each.others) for each in found)]
        )
    titles = ("backends", "its own flows", *(f"others, `table_size: {size}`" for size in SIZES))
    return _markdown(titles, rows)


def both_table() -> str:
    """Of a backend and a balancer that change while the flows last: those that come to a balancer
    whose table names another backend.
    """
    changed = {number: sum(of_table(number, SIZES[0])) for number in BACKENDS}
    rows = [
        [str(number), *(_percent(float(threshold(number).middle) * changed[n]) for n in BACKENDS)]
        for number in BALANCERS
    ]
    return _markdown(("balancers", *(f"{number} backends" for number in BACKENDS)), rows)


def tables() -> dict[str, str]:
    """The tables of docs/fleet.md by their names there."""
    return {
        "balancers": balancers_table(),
        "backends": backends_table(),
        "both": both_table(),
    }


if __name__ == "__main__":
    for name, text in tables().items():
        sys.stdout.write(f"<!-- moved: {name} -->\n{text}\n")

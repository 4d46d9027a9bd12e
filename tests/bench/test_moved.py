"""``bench.moved``: the shares that move, against other ways to compute them, and the page."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest

from bench import moved
from bench.moved import BUCKETS, of_table, resilient, threshold
from paraglider.core.impact import moved as moved_between
from paraglider.core.pool import Backend, Pool
from paraglider.core.service import VirtualService
from paraglider.core.strategies import Context, create

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")


def block(name: str) -> list[str]:
    """The lines of a table of the page."""
    found = re.search(rf"^<!-- moved: {name} -->\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None
    return found[1].splitlines()


def chosen(value: int, paths: list[int]) -> int:
    """What Linux takes for a hash of 31 bits: the first path whose upper bound is not below it."""
    total = len(paths)
    for number, path in enumerate(paths, start=1):
        if value <= ((number << 31) + total // 2) // total - 1:
            return path
    raise AssertionError(value)


@pytest.mark.parametrize("balancers", [2, 3, 5, 8, 64])
def test_shares_of_a_multipath_route(balancers: int) -> None:
    """As a walk over the hash finds them."""
    every, step = list(range(balancers)), 99_991
    for share, gone in zip(threshold(balancers), (0, balancers // 2, balancers - 1), strict=True):
        rest = [path for path in every if path != gone]
        values = range(0, 1 << 31, step * 16)
        differ = sum(chosen(value, every) != chosen(value, rest) for value in values)
        assert abs(float(share) - differ / len(values)) < 0.02
        assert share >= Fraction(1, balancers) - Fraction(1, 1 << 20)


def test_a_resilient_group_moves_no_others() -> None:
    """Only the buckets of the one that left: a part of them all, rounded."""
    for balancers in moved.BALANCERS:
        assert (
            Fraction(1, balancers)
            <= resilient(balancers)
            < Fraction(1, balancers) + Fraction(1, BUCKETS)
        )


def service(hosts: range) -> VirtualService:
    """A service with backends of these numbers."""
    members = [Backend(f"b{n}", bytes([10, 0, n >> 8, n & 255])) for n in hosts]
    strategy = create("maglev", Context(seed=7, parameters={"table_size": 65537}))
    return VirtualService("web", bytes(4), (6,), ((80, 80),), Pool(members), strategy)


def test_shares_of_a_table() -> None:
    """As `explain --against` finds them; of 10 backends a tenth is the one that left."""
    found = of_table(10, 65537)
    assert found.own == pytest.approx(0.1, abs=0.001)
    assert 0 < found.others < 0.005
    between = moved_between(service(range(10)), service(range(9)), 6, 80)
    assert between is not None
    assert between.share == pytest.approx(sum(found), abs=0.002)
    assert of_table(10, 65537, "source") == found
    assert of_table(10, 655_373).others < found.others


def test_the_page_has_these_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of those that take no long, and rows of the others."""
    assert block("balancers") == moved.balancers_table().splitlines()
    monkeypatch.setattr(moved, "BACKENDS", (10, 100))
    monkeypatch.setattr(moved, "SIZES", (65537,))
    for line in moved.backends_table().splitlines()[2:]:
        assert line.removesuffix("|") in "\n".join(block("backends"))
    small = moved.both_table().splitlines()[2:]
    columns = [[row.split("|")[n] for n in (1, 2, 4)] for row in block("both")[2:]]
    assert [line.split("|")[1:4] for line in small] == columns
    assert len(block("backends")) == 2 + 5

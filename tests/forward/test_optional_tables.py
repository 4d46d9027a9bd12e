"""Tests of ``paraglider.forward.optional_tables``: which tables a configuration comes with."""

from __future__ import annotations

import pytest

from paraglider.config.model import Config
from paraglider.forward.openings import TABLE as OPENINGS
from paraglider.forward.optional_tables import optional_tables, table_names
from paraglider.forward.registry import methods

BOTH = {
    4: {"vip": "192.168.0.11/24", "backends": ["10.0.0.1"]},
    6: {"vip": "2001:db8::11/64", "backends": ["fd00:10::1"]},
}


def config(*forwards: str, family: int = 4) -> Config:
    """A service for each of ``forwards``."""
    sides = {"public": {"interface": "eth0"}, "private": {"interface": "eth1"}}
    base = {**BOTH[family], "protocol": "tcp"}
    services = [
        {
            **base,
            "vip": str(base["vip"]).replace("11/", f"{11 + n}/"),
            "name": f"s{n}",
            "ports": 80,
            "forward": forward,
        }
        for n, forward in enumerate(forwards)
    ]
    return Config.model_validate({"network": sides, "services": services})


def names(wanted: Config, family: int, workers: int = 1) -> list[str]:
    """The names of the tables, in the order of their making."""
    return [table.name for table in optional_tables(wanted, family, workers)]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("forward", "own"),
    [("nat", ["paraglider-long"]), ("offload", []), ("dsr", ["paraglider-dsr"])],
)
def test_a_methods_own_and_the_limits(family: int, forward: str, own: list[str]) -> None:
    """The limits of new flows come last; the other family has none."""
    wanted = config(forward, family=family)
    assert names(wanted, family) == [*own, OPENINGS]
    assert names(wanted, 10 - family) == []


def test_a_proxy_has_none() -> None:
    """No packet of it is queued."""
    assert names(config("proxy"), 4) == []


def test_the_order_is_that_of_the_methods() -> None:
    """Independent of the file's order; the limits are one table for all."""
    found = names(config("dsr", "nat", "offload"), 4)
    assert found == names(config("offload", "nat", "dsr"), 4)
    assert sorted(found[:-1]) == ["paraglider-dsr", "paraglider-long"]
    assert found[-1] == OPENINGS


def test_every_name_is_known_once() -> None:
    """The undo looks for them: optional tables and those that a method requires."""
    known = table_names()
    assert len(set(known)) == len(known)
    assert set(names(config("dsr", "nat", "offload"), 4)) < set(known)
    assert {name for method in methods() for name in method.table_names} == {*known} - {OPENINGS}

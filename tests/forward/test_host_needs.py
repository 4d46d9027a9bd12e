"""Tests of ``paraglider.forward.host_needs``: routes as ip(8) reads them, and defaults."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from paraglider.forward.host_needs import (
    MAIN,
    HostNeeds,
    NftTable,
    PolicyRule,
    ProxyEntry,
    Route,
    SysctlNeed,
)

FOUR, SIX = ip_address("10.0.0.1"), ip_address("fd00:10::1")


@pytest.mark.parametrize(
    ("route", "family", "said"),
    [
        (Route("eth1", FOUR), 4, "10.0.0.1 dev eth1"),
        (Route("eth1", SIX), 6, "fd00:10::1 dev eth1"),
        (Route("eth1", FOUR, table=0x52), 4, "10.0.0.1 dev eth1 table 0x52"),
        (
            Route("eth1", table=0x5200000A, via=FOUR),
            4,
            "default via 10.0.0.1 dev eth1 table 0x5200000a onlink",
        ),
        (Route("eth1", via=SIX), 6, "default via fd00:10::1 dev eth1 onlink"),
        (Route("eth1", FOUR, via=FOUR), 4, "10.0.0.1 via 10.0.0.1 dev eth1 onlink"),
    ],
)
def test_a_route_as_ip_reads_it(route: Route, family: int, said: str) -> None:
    """The main table is not named; a neighbour need not be in a network of the interface."""
    assert (route.family, str(route)) == (family, said)


def test_a_route_to_nowhere_is_a_defect() -> None:
    """It has no family."""
    with pytest.raises(AssertionError):
        _ = Route("eth1").family


def test_entries_are_hashable() -> None:
    """A set contains each once, of all kinds."""
    rule = PolicyRule(4, 1, 0xFF, MAIN, 82)
    entries = {Route("eth1", FOUR), Route("eth1", FOUR, table=1), rule, ProxyEntry("eth1", FOUR)}
    entries |= {Route("eth1", FOUR, table=MAIN), rule._replace()}
    assert len(entries) == 4


def test_what_is_left_out_is_not_asked_for() -> None:
    """The defaults: a need is required, a table keeps its elements, and there is no note to the
    operator.
    """
    assert HostNeeds() == HostNeeds((), ())
    need = SysctlNeed("net/ipv4/ip_forward", "1")
    assert (need.optional, need.unless) == (False, None)
    table = NftTable("paraglider", "", "")
    assert (table.terse, table.lacking) == (False, "")

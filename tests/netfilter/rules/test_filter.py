"""The packets that the filter rules accept, and the ICMP redirects that they drop."""

from __future__ import annotations

import pytest

from paraglider.netfilter.iptables import Iptables
from paraglider.netfilter.rules.filter import accept_table, no_redirects
from paraglider.netfilter.rules.ruleset import RuleSet, joined


def test_what_is_accepted_comes_ahead_of_the_hosts_own_rules() -> None:
    """The chain is gone to by the first rule of FORWARD."""
    text = RuleSet(4, (accept_table(("-m mark --mark 0x1 -j ACCEPT",)),)).text()
    assert "-I FORWARD 1 -j PARAGLIDER-ACCEPT\n" in text
    assert "-A PARAGLIDER-ACCEPT -m mark --mark 0x1 -j ACCEPT\n" in text


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_the_kernel_takes_both(family: int) -> None:
    """The kernel accepts both as one table."""
    tables = joined((accept_table(("-j RETURN",)), no_redirects(family)))
    assert len(tables) == 1
    Iptables().rehearse(family, RuleSet(family, tables).text())

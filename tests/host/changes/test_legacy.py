"""Tests of ``paraglider.host.changes.legacy``: our rules in iptables-legacy's filter."""

from __future__ import annotations

from typing import Any

from paraglider.host.changes.legacy import LegacyChange

TEXT = "*filter\n:PARAGLIDER - [0:0]\n-I FORWARD 1 -j PARAGLIDER\n-A PARAGLIDER -j A\nCOMMIT\n"
OTHER = TEXT.replace("-j A\n", "-j B\n")
THEIRS = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 192.0.2.1 -j DROP\nCOMMIT\n"


def test_our_rules_come_and_go_beside_those_of_others(air: Any) -> None:
    """iptables-nft's tables are not touched."""
    air.legacy.restore(4, THEIRS)
    before, modern = air.legacy.saved(4), air.netfilter.saved(4)
    change = LegacyChange(4, TEXT)
    change.apply(air.host)
    held = air.legacy.saved(4)
    assert "-A PARAGLIDER -j A" in held
    assert "-s 192.0.2.1 -j DROP" in held
    change.revert(air.host)
    assert air.legacy.saved(4) == before
    assert air.netfilter.saved(4) == modern


def test_applied_twice_they_are_there_once(air: Any) -> None:
    """Over any version of them."""
    LegacyChange(4, OTHER).apply(air.host)
    LegacyChange(4, TEXT).apply(air.host)
    once = air.legacy.saved(4)
    LegacyChange(4, TEXT).apply(air.host)
    assert air.legacy.saved(4) == once
    assert once.count("-j PARAGLIDER") == 1
    assert "-j B" not in once


def test_a_replacement_goes_back_to_what_it_replaced(air: Any) -> None:
    """A roll-back restores the replaced rules; these are not stored."""
    LegacyChange(4, OTHER).apply(air.host)
    before = air.legacy.saved(4)
    change = LegacyChange(4, TEXT, previous=OTHER)
    change.apply(air.host)
    assert air.legacy.saved(4) != before
    change.revert(air.host)
    assert air.legacy.saved(4) == before


def test_the_kernels_form_is_kept(air: Any) -> None:
    """For the comparison of the next run; text and family stay."""
    change = LegacyChange(6, TEXT)
    change.apply(air.host)
    settled = change.settled(air.host)
    assert settled == LegacyChange(6, TEXT, air.legacy.ours(6))
    assert "-A PARAGLIDER -j A" in settled.saved
    assert settled.identity == change.identity == ("legacy rules", "6")


def test_the_scripts_have_the_whole_input(air: Any) -> None:
    """As a here-document; the revert removes the chain and the jump."""
    change = LegacyChange(4, TEXT)
    assert change.script(air.host) == f"restore4 <<'END'\n{TEXT}END\n"
    change.apply(air.host)
    assert change.revert_script(air.host) == (
        "restore4 <<'END'\n*filter\n-D FORWARD -j PARAGLIDER\n-F PARAGLIDER\n-X PARAGLIDER\n"
        "COMMIT\nEND\n"
    )
    assert change.describe("apply") == "rules of iptables-legacy for IPv4"
    assert change.describe("revert") == "rules of iptables-legacy for IPv4 removed"

"""The rules of a family as a change, on a fake host."""

from __future__ import annotations

from typing import Any

from paraglider.host.changes.ruleset import RulesChange, removal_script

OLD = (
    "*raw\n:PARAGLIDER - [0:0]\n-I PREROUTING 1 -j PARAGLIDER\n-A PARAGLIDER -p tcp -j A\nCOMMIT\n"
)
NEW = OLD.replace("tcp", "udp")


def test_what_the_kernel_made_of_the_text_is_kept(air: Any) -> None:
    """For the comparison of the next run."""
    change = RulesChange(4, OLD, {})
    change.apply(air.host)
    assert change.settled(air.host).saved == air.netfilter.ours(4)
    assert "-A PARAGLIDER -p tcp -j A" in change.settled(air.host).saved


def test_a_replacement_goes_back_to_what_it_replaced(air: Any) -> None:
    """Rolling back is not undoing."""
    RulesChange(4, OLD, {}).apply(air.host)
    before = air.netfilter.saved(4)
    change = RulesChange(4, NEW, {}, previous=OLD)
    change.apply(air.host)
    assert air.netfilter.saved(4) != before
    change.revert(air.host)
    assert air.netfilter.saved(4) == before


def test_the_first_rules_go_back_to_none(air: Any) -> None:
    """Together with the tables that were added."""
    change = RulesChange(4, OLD, {})
    change.apply(air.host)
    change.revert(air.host)
    assert air.netfilter.saved(4) == ""


def test_the_scripts_have_the_whole_input(air: Any) -> None:
    """As here-documents; without rules of ours there is nothing to remove."""
    change = RulesChange(6, OLD, {})
    assert change.script(air.host) == f"restore6 <<'END'\n{OLD}END\n"
    assert removal_script(6, air.host) == ""
    change.apply(air.host)
    assert change.revert_script(air.host) == (
        "restore6 <<'END'\n*raw\n-D PREROUTING -j PARAGLIDER\n-F PARAGLIDER\n-X PARAGLIDER\n"
        "COMMIT\nEND\nnft -f - <<'END'\ndelete raw\nEND\n"
    )


def test_the_line_of_a_replacement() -> None:
    """The operator reads how many rules there are."""
    assert RulesChange(4, OLD, {}).describe("apply") == "rules for IPv4: 2"
    assert RulesChange(4, NEW, {}, previous=OLD).describe("apply") == (
        "rules for IPv4: 2 in place of others"
    )
    assert RulesChange(4, NEW, {}, previous=OLD).describe("keep") == "rules for IPv4: 2"
    assert RulesChange(4, NEW, {}).describe("revert") == "rules for IPv4 removed"

"""The rules of dsr beside those of others; their text is in the golden files."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.queue_rules import queue_rules
from paraglider.netfilter.rules.marks import ROUTED
from paraglider.netfilter.rules.ruleset import RuleSet

DSR = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "forward": "dsr"}
DSR |= {"backends": ["10.0.0.1"]}


def rules(*services: dict[str, Any]) -> RuleSet:
    """The rules of these services for one worker."""
    found = queue_rules(Config.model_validate({"services": list(services)}), 4, (0,), 1)
    assert found is not None
    return found


def chains(found: RuleSet) -> dict[tuple[str, str], tuple[str, ...]]:
    """(table, chain) → rules."""
    return {(table.name, c.name): c.rules for table in found.tables for c in table.chains}


def test_answers_have_no_rules() -> None:
    """Outgoing packets are not queued, and no rule has a backend's address."""
    found = rules(DSR)
    jumps = {(table.name, builtin) for table in found.tables for builtin, _ in table.jumps}
    assert jumps == {
        ("raw", "PREROUTING"),
        ("mangle", "PREROUTING"),
        ("filter", "FORWARD"),
        ("filter", "OUTPUT"),
    }
    assert "10.0.0.1" not in found.text()


@pytest.mark.parametrize("forward", ["nat", "offload"])
def test_other_forwards_keep_their_rules(forward: str) -> None:
    """dsr adds its chains, and rules that exclude its packets from the others' chains."""
    other = {**DSR, "name": "b", "vip": "192.168.0.12/24", "forward": forward}
    alone, both, dsr = chains(rules(other)), chains(rules(DSR, other)), chains(rules(DSR))
    assert set(both) == {*alone, *dsr}
    for place, wanted in alone.items():
        added = set(both[place]) - set(wanted)
        assert added <= {f"-m mark --mark {ROUTED} -j RETURN"}
    assert {place: both[place] for place in dsr} == dsr


def test_without_a_worker_requests_are_dropped() -> None:
    """The VIP is no address here, so no host could take them."""
    assert "--queue-bypass" not in rules(DSR).text()

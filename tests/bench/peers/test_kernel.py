"""The reference balances in turn."""

from __future__ import annotations

from bench.peers.kernel import dnat_rules


def test_dnat_rules_share_equally() -> None:
    """Of three backends the first takes every third, the second every second of the rest."""
    rules = [line for line in dnat_rules().splitlines() if "--dport 80" in line]
    assert [rule.partition("--every ")[2][:1] for rule in rules] == ["3", "2", ""]
    assert [rule.split()[-1] for rule in rules] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_dnat_rules_carry_iperf3_in_both_protocols() -> None:
    """iperf3 goes to the first backend, which has the server."""
    rules = [line for line in dnat_rules().splitlines() if "--dport 5201" in line]
    assert [rule.split()[5] for rule in rules] == ["tcp", "udp"]
    assert all(rule.endswith("10.0.0.1") for rule in rules)

"""Tests of ``paraglider.forward.nat.rules``: both directions pass a queue, out of conntrack.

The whole text is in ``test_queue_rules``' golden files.
"""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.nat.rules import DECIDED, nat_rules
from paraglider.forward.registry import methods
from paraglider.forward.rule_parts import MethodRules, RuleScope
from paraglider.netfilter.rules.marks import LONG

ENDS = {4: ("192.168.0.11", "10.0.0.1"), 6: ("2001:db8::11", "fd00:10::1")}
(NAT,) = (method for method in methods() if method.name == "nat")


def made(family: int = 4, *others: dict[str, Any], **changes: Any) -> MethodRules:
    """The rules of one nat service, beside ``others``."""
    vip, backend = ENDS[family]
    one = {"name": "web", "vip": vip, "protocol": "tcp", "ports": 80, "backends": [backend]}
    services = [{**one, **changes}, *({**one, "name": "o", **other} for other in others)]
    config = Config.model_validate({"services": services})
    scope = RuleScope(config, family, (0, 1), 7, methods(), (DECIDED,))
    return nat_rules(scope.of(NAT), scope)


def chains(rules: MethodRules, table: str) -> dict[str, tuple[str, ...]]:
    """The rules of the chains of ``table`` by their names."""
    (found,) = (each for each in rules.tables if each.name == table)
    return {chain.name: chain.rules for chain in found.chains}


@pytest.mark.parametrize("family", [4, 6])
def test_requests_and_replies_are_not_tracked(family: int) -> None:
    """By the port of the VIP and of the backend; packets of the host to itself are tracked."""
    vip, backend = ENDS[family]
    raw = chains(made(family), "raw")
    assert raw["PARAGLIDER"][0] == "-i lo -j RETURN"
    ruled = [rule for rules in raw.values() for rule in rules]
    assert any(f"-d {vip}" in rule and "--dport 80" in rule for rule in ruled)
    assert any(f"-s {backend}" in rule and "--sport 80" in rule for rule in ruled)
    assert raw["PARAGLIDER-NOTRACK"] == ("-j CT --notrack",)


@pytest.mark.parametrize("family", [4, 6])
def test_who_answers_past_this_host_has_no_replies_here(family: int) -> None:
    """Only errors of the backends are queued and untracked."""
    _, backend = ENDS[family]
    rules = made(family, **{"return": "direct"})
    for table in ("raw", "mangle"):
        for name, ruled in chains(rules, table).items():
            errors = name == "PARAGLIDER-ERROR"
            assert errors or not any(f"-s {backend}" in rule for rule in ruled)
    assert any(f"-s {backend}" in rule for rule in chains(rules, "raw")["PARAGLIDER-ERROR"])


def test_without_a_worker_requests_are_dropped_and_errors_pass() -> None:
    """The local stack would answer a request with RST; an error does no harm untouched."""
    mangle = chains(made(), "mangle")
    assert mangle["PARAGLIDER-QUEUE"]
    assert not any("bypass" in rule for rule in mangle["PARAGLIDER-QUEUE"])
    assert not any("bypass" in rule for rule in mangle["PARAGLIDER-OPEN"])
    assert all(rule.endswith("--queue-bypass") for rule in mangle["PARAGLIDER-QUEUE-ERROR"])
    assert len(mangle["PARAGLIDER-QUEUE"]) == len(mangle["PARAGLIDER-QUEUE-ERROR"])


def test_what_was_decided_is_not_queued_again() -> None:
    """As the first rule of the forward chain; such packets are accepted."""
    rules = made()
    assert chains(rules, "mangle")["PARAGLIDER-FWD"][0] == f"{DECIDED} -j RETURN"
    assert rules.shared is not None
    assert rules.shared.accepted[0] == f"{DECIDED} -j ACCEPT"


def test_a_long_packet_that_the_kernel_did_not_rewrite_is_dropped() -> None:
    """Whether it would be forwarded or delivered here."""
    rules = made()
    drop = f"-m mark --mark {LONG} -j DROP"
    assert chains(rules, "filter") == {"PARAGLIDER-LONG": (drop,)}
    assert rules.shared is not None
    assert rules.shared.accepted[-1] == drop


def test_errors_about_conntracks_flows_stay_tracked() -> None:
    """At a VIP that offload has too; an error about a nat flow there is queued to its worker."""
    vip, _ = ENDS[4]
    other = {"forward": "offload", "ports": 81, "backends": ["10.0.0.9"]}
    alone, beside = (chains(rules, "raw") for rules in (made(), made(4, other)))
    assert any(f"-d {vip} " in rule for rule in alone["PARAGLIDER-ERROR"])
    assert not any(f"-d {vip} " in rule for rule in beside["PARAGLIDER-ERROR"])
    shared = made(4, other).shared
    assert shared is not None
    assert any(f"-d {vip}" in rule for rule in shared.errors)

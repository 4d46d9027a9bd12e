"""Tests of ``paraglider.forward.offload.rules``: only first packets pass a queue.

The whole text is in ``test_queue_rules``' golden files.
"""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.offload.rules import DECIDED, offload_rules
from paraglider.forward.registry import methods
from paraglider.forward.rule_parts import MethodRules, RuleScope, SharedPart
from paraglider.netfilter.rules.steering import OURS

ENDS = {4: ("192.168.0.11", "10.0.0.1"), 6: ("2001:db8::11", "fd00:10::1")}
(OFFLOAD,) = (method for method in methods() if method.name == "offload")


def made(
    family: int = 4, *others: dict[str, Any], **changes: Any
) -> tuple[MethodRules, SharedPart]:
    """The rules of one offload service, beside ``others``."""
    vip, backend = ENDS[family]
    one = {"name": "web", "vip": vip, "protocol": "tcp", "ports": 80, "backends": [backend]}
    if changes.get("protocol") == "any":
        del one["ports"]
    services = [{**one, "forward": "offload", **changes}]
    services += [{**one, "name": f"o{n}", **other} for n, other in enumerate(others)]
    config = Config.model_validate({"services": services})
    scope = RuleScope(config, family, (0, 1), 7, methods(), (DECIDED,))
    rules = offload_rules(scope.of(OFFLOAD), scope)
    assert rules.shared is not None
    return rules, rules.shared


def first_packets(rules: MethodRules) -> tuple[str, ...]:
    """The rules of the one chain that there is."""
    (table,) = rules.tables
    (chain,) = table.chains
    assert (table.name, table.jumps, chain.name) == ("mangle", (), "PARAGLIDER-NEW")
    return chain.rules


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_no_first_packet_is_not_queued(family: int) -> None:
    """Nor are packets above the limit; these rules come first."""
    rules = first_packets(made(family)[0])
    queued = [n for n, rule in enumerate(rules) if "NFQUEUE" in rule]
    returned = [n for n, rule in enumerate(rules) if rule.endswith("-j RETURN")]
    assert len(returned) == 3
    assert max(returned) < min(queued)
    assert rules[0] == "-m conntrack ! --ctstate NEW -j RETURN"
    assert f"-m mark --mark {OURS} -j RETURN" in rules


def test_a_syn_that_comes_again_is_asked_about_a_datagram_is_not() -> None:
    """It counts against the backend; a connection that has left the host has its backend."""
    (confirmed,) = (rule for rule in first_packets(made()[0]) if "CONFIRMED" in rule)
    assert confirmed.startswith("! -p tcp ")


def test_without_a_worker_the_kernel_decides() -> None:
    """First packets pass."""
    queued = [rule for rule in first_packets(made()[0]) if "NFQUEUE" in rule]
    assert queued
    assert all(rule.endswith("--queue-bypass") for rule in queued)


@pytest.mark.parametrize(
    ("others", "early"),
    [
        ((), 2),
        (({"forward": "proxy", "ports": 81},), 2),
        (({"forward": "dsr", "vip": "192.168.0.12", "ports": 80},), 2),
        (({"forward": "nat", "ports": 81, "backends": ["10.0.0.9"]},), 1),
    ],
)
def test_segments_are_passed_early_unless_a_worker_wants_them(
    others: tuple[dict[str, Any], ...], early: int
) -> None:
    """Beside a method whose workers have the flows, only packets known to conntrack are passed."""
    _, shared = made(4, *others)
    assert len(shared.early) == early
    assert shared.early[-1] == "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"


HASH = {"strategy": "maglev", "seed": 7}


@pytest.mark.parametrize(
    ("changes", "adopts"),
    [
        (HASH, True),
        ({"strategy": "mine.policy:Class"}, True),
        ({**HASH, "adopt": "never"}, False),
        ({**HASH, "affinity": "client"}, False),
        ({**HASH, "snat": "10.0.0.254"}, False),
        ({}, False),
    ],
)
def test_segments_in_mid_stream_are_queued_if_a_worker_may_adopt_them(
    changes: dict[str, Any], adopts: bool
) -> None:
    """With established traffic; once, without those of connections that have a backend. Without a
    worker they pass, and the host answers RST.
    """
    rules, shared = made(**changes)
    (table,) = rules.tables
    assert [chain.name for chain in table.chains[1:]] == ["PARAGLIDER-MIDSTREAM"] * adopts
    assert (DECIDED in shared.early[0]) == adopts
    assert len(shared.early) == 2
    jumps = [rule for rule in table.chains[0].rules if "PARAGLIDER-MIDSTREAM" in rule]
    assert len(jumps) == adopts
    for chain in table.chains[1:]:
        assert "CONFIRMED -j RETURN" in chain.rules[0]
        numbers = [rule.split("--queue-num ")[1] for rule in chain.rules if "NFQUEUE" in rule]
        assert numbers == ["0 --queue-bypass", "1 --queue-bypass"]


def test_connections_with_a_backend_are_accepted() -> None:
    """By the connection's mark; errors are handled by conntrack, echo by the service."""
    _, shared = made()
    assert (shared.accepted, shared.errors, shared.echo) == ((f"{DECIDED} -j ACCEPT",), (), ())
    assert "connmark" in DECIDED
    _, every = made(protocol="any")
    assert every.echo
    assert all(rule.endswith("-g PARAGLIDER-NEW") for rule in every.echo)

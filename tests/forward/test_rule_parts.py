"""Tests of ``paraglider.forward.rule_parts``: the input of rules, chosen by method."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.forward.registry import methods
from paraglider.forward.rule_parts import RuleScope, shares_chains

BASE = {"vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
BY_NAME = {method.name: method for method in methods()}


def scope(*services: dict[str, Any], family: int = 4) -> RuleScope:
    """The scope of these services for two workers."""
    made = [{**BASE, "name": f"s{n}", **service} for n, service in enumerate(services)]
    config = Config.model_validate({"services": made})
    return RuleScope(config, family, (0, 1), 1, methods(), ())


def addresses(found: Any) -> list[str]:
    """The VIPs of a traffic."""
    return [str(address) for address in found.addresses]


NAT = {"ports": 80}
OFFLOAD = {"ports": 81, "forward": "offload", "vip": "192.168.0.12/24"}
PROXY = {"ports": 82, "forward": "proxy", "vip": "192.168.0.13/24"}


@pytest.mark.parametrize(
    ("name", "shares"), [("nat", True), ("offload", True), ("dsr", False), ("proxy", False)]
)
def test_which_methods_share_the_chains_for_every_packet(name: str, shares: bool) -> None:
    """Methods that queue packets to addresses of this host."""
    assert shares_chains(BY_NAME[name]) == shares


def test_traffic_is_that_of_the_chosen_methods() -> None:
    """Made once for each choice; of none it is empty."""
    made = scope(NAT, OFFLOAD, PROXY)
    assert addresses(made.of(BY_NAME["nat"])) == ["192.168.0.11"]
    assert addresses(made.traffic(shares_chains)) == ["192.168.0.11", "192.168.0.12"]
    assert made.traffic(shares_chains) is made.traffic(lambda m: m.queued and m.owns_vip)
    assert made.of(BY_NAME["dsr"]).services == ()
    assert scope(NAT, family=6).traffic(lambda _: True).services == ()


def test_steering_goes_by_the_chosen_services() -> None:
    """By clients only if one of them has affinity."""
    made = scope({**NAT, "affinity": "client"}, OFFLOAD)
    assert made.steering(lambda m: m is BY_NAME["nat"]).cores == (0, 1)
    both, other = made.steering(shares_chains), made.steering(lambda m: m.conntracked)
    assert both.by_source() != other.by_source()
    assert scope(NAT, OFFLOAD).steering(shares_chains).by_source() == other.by_source()


def test_local_sockets_are_spared_at_vips_that_are_balanced_as_a_whole() -> None:
    """A proxy's port of a VIP all of whose other ports are queued; of another VIP it needs none."""
    whole = {"protocol": "tcp"}
    listened = {"ports": 82, "forward": "proxy"}
    (rule,) = scope(whole, listened).local
    assert "-d 192.168.0.11" in rule
    assert "--dport 82" in rule
    assert rule.endswith("-j RETURN")
    assert scope(NAT, listened).local == ()
    assert scope(whole, PROXY).local == ()

"""Chains of other firewalls, as nft lists them, in a network namespace."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.host.foreign import blocked
from paraglider.lab.namespace import Namespace

pytestmark = pytest.mark.root

HOOK = "type filter hook forward priority 10; policy"


def config(forward: str) -> Config:
    """A service a family."""
    services = [
        {"name": "a", "vip": "192.0.2.1/24", "backends": ["10.0.0.1"]},
        {"name": "b", "vip": "2001:db8::1/64", "backends": ["fd00::1"]},
    ]
    every: list[dict[str, Any]] = [
        {**s, "protocol": "tcp", "ports": 80, "forward": forward} for s in services
    ]
    return Config.model_validate({"services": every})


def test_a_chain_that_drops(inside: Namespace) -> None:
    """It is reported with a remedy, which works; our chains and those of
    other hooks are skipped.
    """
    assert blocked(config("nat")) == []
    inside.run(
        ["nft", "-f", "-"],
        text=f"""
table inet hostfw {{
chain forward {{ {HOOK} accept;
  ct state established,related accept
  ct status dnat accept
  reject with icmpx admin-prohibited
}}
chain input {{ type filter hook input priority 0; policy drop; }}
}}
table ip paraglider {{
chain forward {{ {HOOK} drop; }}
}}
table ip6 other {{
chain f {{ {HOOK} drop; }}
}}
""",
    )
    (one, six) = blocked(config("nat"))
    assert (one.chain, one.forward, one.versions) == ("inet hostfw forward", "nat", (4, 6))
    assert (six.chain, six.versions) == ("ip6 other f", (6,))
    assert [found.chain for found in blocked(config("offload"))] == ["ip6 other f"]
    for found in (one, six):
        inside.run(str(found).rpartition(": ")[2].split())
    assert blocked(config("nat")) == []
    assert blocked(config("proxy")) == []


def test_iptables(inside: Namespace) -> None:
    """A policy of iptables-nft is one too, until our own rules are there."""
    inside.run(["iptables", "-P", "FORWARD", "DROP"])
    (found,) = blocked(config("nat"))
    assert (found.chain, found.versions) == ("ip filter FORWARD", (4,))
    inside.run(["iptables", "-N", "PARAGLIDER-ACCEPT"])
    inside.run(["iptables", "-I", "FORWARD", "-j", "PARAGLIDER-ACCEPT"])
    assert blocked(config("nat")) == []

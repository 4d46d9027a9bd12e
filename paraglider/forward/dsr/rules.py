"""The iptables rules of ``forward: dsr`` (``forward.one_sided_rules``), and its marks' matches."""

from __future__ import annotations

from paraglider.forward.one_sided_rules import OneSided, one_sided_rules
from paraglider.forward.rule_parts import MethodRules, OpeningsPart
from paraglider.netfilter.rules.marks import DSR_BASE, LEASE, MASK, ROUTED
from paraglider.netfilter.rules.steering import Steering
from paraglider.netfilter.rules.traffic import RuleTraffic

DECIDED = f"-m mark --mark {ROUTED}"
"""The match of packets with a backend, by a worker's mark or a lease."""

OPENINGS = OpeningsPart(
    decided=f"meta mark & 0x{MASK:08x} == 0x{DSR_BASE:08x}",
    proven=f"meta mark & 0x{MASK | LEASE:08x} == 0x{DSR_BASE | LEASE:08x}",
)
"""How new flows are limited."""

_METHOD = OneSided(
    "dsr",
    "DSR",
    DECIDED,
    "ACCEPT",
    "packets with a backend's mark pass, whatever the policy; no others to a VIP do",
    "; what has a lease has its mark",
)


def dsr_rules(dsr: RuleTraffic, family: int, steering: Steering) -> MethodRules:
    """The rules of ``dsr``, at least one service."""
    return MethodRules(one_sided_rules(_METHOD, dsr, family, steering))

"""The iptables rules of ``forward: tunnel``: those of ``forward.one_sided_rules``, and rules for
the packets that the workers send.

Rules: pure. The original of a packet that a worker has sent is dropped. A packet that a worker
sends has the mark ``SENT``: conntrack does not track it, and OUTPUT accepts it.
"""

from __future__ import annotations

from paraglider.forward.one_sided_rules import OneSided, one_sided_rules
from paraglider.forward.rule_parts import MethodRules, OpeningsPart
from paraglider.netfilter.rules.marks import LEASE, MASK, SENT, TUNNEL_BASE, TUNNELLED
from paraglider.netfilter.rules.ruleset import Chain, Table
from paraglider.netfilter.rules.steering import Steering
from paraglider.netfilter.rules.traffic import RuleTraffic

DECIDED = f"-m mark --mark {TUNNELLED}"
"""The match of packets that a worker has sent in an outer header."""

OPENINGS = OpeningsPart(
    decided=f"meta mark & 0x{MASK:08x} == 0x{TUNNEL_BASE:08x}",
    proven=f"meta mark & 0x{MASK | LEASE:08x} == 0x{TUNNEL_BASE | LEASE:08x}",
)
"""How new flows are limited."""

_METHOD = OneSided(
    "tunnel",
    "TUN",
    DECIDED,
    "DROP",
    "originals of packets that a worker has sent end here; no others to a VIP pass",
    queues=Steering.tunnels,
    numbered="the kernel splits merged packets before this queue, that of the core + 12288",
)


def tunnel_rules(tunnel: RuleTraffic, family: int, steering: Steering) -> MethodRules:
    """The rules of ``tunnel``, at least one service."""
    raw, mangle, filtering = one_sided_rules(_METHOD, tunnel, family, steering)
    sent = f"-m mark --mark 0x{SENT:08x}"
    untracked = Chain(
        "PARAGLIDER-TUN-SENT",
        "what the workers send to backends and clients is not tracked",
        (f"{sent} -j CT --notrack",),
    )
    passed = Chain(
        "PARAGLIDER-TUN-PASS",
        "nor does the policy of OUTPUT matter to it",
        (f"{sent} -j ACCEPT",),
    )
    return MethodRules(
        (
            _with(raw, untracked),
            mangle,
            _with(filtering, passed),
        )
    )


def _with(table: Table, chain: Chain) -> Table:
    """``table`` with ``chain`` in OUTPUT."""
    return Table(table.name, (*table.chains, chain), (*table.jumps, ("OUTPUT", chain.name)))

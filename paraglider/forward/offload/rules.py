"""The iptables rules of ``forward: offload``: only first packets pass a worker's queue.

Lives here: the packets that are queued and that are accepted. The nft table handles the flows
(``forward.offload.table``).
Rules: pure. A first packet that no worker could take is accepted: the kernel then decides.
"""

from __future__ import annotations

from paraglider.forward.rule_parts import (
    MethodRules,
    OpeningsPart,
    RuleScope,
    SharedPart,
    shares_chains,
)
from paraglider.netfilter.rules.marks import OFFLOADED
from paraglider.netfilter.rules.matches import echo, queues, to_requests
from paraglider.netfilter.rules.ruleset import Chain, Table
from paraglider.netfilter.rules.steering import OURS, Steering
from paraglider.netfilter.rules.traffic import RuleTraffic

DECIDED = f"-m connmark --mark {OFFLOADED}"
"""The match of packets of connections that have a backend."""

OPENINGS = OpeningsPart(hashed=True)
"""How new flows are limited."""

_TO_NEW = "-g PARAGLIDER-NEW"
_SEGMENTS = "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN"
_KNOWN = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"


def offload_rules(offload: RuleTraffic, scope: RuleScope) -> MethodRules:
    """The rules of ``offload``, which has a service."""
    some, every = (
        to_requests(f"PARAGLIDER-{name}", offload, "PARAGLIDER-NEW", all_ports=all_ports)
        for name, all_ports in (("SOME-NEW", False), ("ALL-NEW", True))
    )
    # Ahead of all the rest: nearly every packet of an offloaded flow ends here. The first of the
    # two is some 100 ns cheaper, but a method whose flows are in the workers needs every segment
    others = scope.traffic(lambda method: shares_chains(method) and not method.conntracked)
    shared = SharedPart(
        some,
        every,
        echo=tuple(f"{match} {_TO_NEW}" for match in echo(offload, scope.family)),
        early=(_KNOWN,) if others.services else (_SEGMENTS, _KNOWN),
        accepted=(f"{DECIDED} -j ACCEPT",),
    )
    chain = _first_packets(scope.steering(shares_chains))
    return MethodRules((Table("mangle", (chain,), jumps=()),), shared)


def _first_packets(steering: Steering) -> Chain:
    """Rules for the first packets of offloaded flows.

    A datagram that follows an unanswered first one is NEW too: if the connection has left the host
    once (CONFIRMED), it has its backend. The same holds for a repeated SYN, but a worker gets it,
    because it counts against the backend; the kernel does not choose a backend twice. Packets that
    have a worker's mark already are beyond the limit of the queue (``openings``).
    """
    return Chain(
        "PARAGLIDER-NEW",
        "first packets, to be decided about; without a worker: passed, the kernel decides",
        (
            "-m conntrack ! --ctstate NEW -j RETURN",
            f"-m mark --mark {OURS} -j RETURN",
            "! -p tcp -m conntrack --ctstatus CONFIRMED -j RETURN",
            steering.by_source(),
            *(f"{rule} --queue-bypass" for rule in queues(steering.offloaded())),
        ),
    )

"""The iptables rules of ``forward: offload``: only packets of no connection pass a worker's queue.

Lives here: the packets that are queued and that are accepted. The nft table handles the flows
(``forward.offload.table``).
Rules: pure. A first packet that no worker could take is accepted: the kernel then decides. A
segment in mid-stream, which the kernel would answer with RST, is dropped if the queue is full.
"""

from __future__ import annotations

from paraglider.forward.rule_parts import (
    MethodRules,
    OpeningsPart,
    RuleScope,
    SharedPart,
    shares_chains,
)
from paraglider.netfilter.rules.answers import may_adopt
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
_MIDSTREAM = "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN"
_SEGMENTS = f"{_MIDSTREAM} -j RETURN"
_CARRIED = f"{_MIDSTREAM} {DECIDED} -j RETURN"
_KNOWN = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"


def offload_rules(offload: RuleTraffic, scope: RuleScope) -> MethodRules:
    """The rules of ``offload``, which has a service."""
    some, every = (
        to_requests(f"PARAGLIDER-{name}", offload, "PARAGLIDER-NEW", all_ports=all_ports)
        for name, all_ports in (("SOME-NEW", False), ("ALL-NEW", True))
    )
    # Ahead of all the rest: nearly every packet of an offloaded flow ends here. The first of the
    # two is some 100 ns cheaper, but a method whose flows are in the workers needs every segment,
    # and adoption those of connections without a backend
    adopts = any(map(may_adopt, offload.services))
    others = scope.traffic(lambda method: shares_chains(method) and not method.conntracked)
    shared = SharedPart(
        some,
        every,
        echo=tuple(f"{match} {_TO_NEW}" for match in echo(offload, scope.family)),
        early=(*(() if others.services else (_CARRIED if adopts else _SEGMENTS,)), _KNOWN),
        accepted=(f"{DECIDED} -j ACCEPT",),
    )
    steering = scope.steering(shares_chains)
    chains = (_first_packets(steering, adopts), *((_midstream(steering),) if adopts else ()))
    return MethodRules((Table("mangle", chains, jumps=()),), shared)


def _first_packets(steering: Steering, adopts: bool) -> Chain:
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
            *((f"{_MIDSTREAM} -g PARAGLIDER-MIDSTREAM",) if adopts else ()),
            steering.by_source(),
            *(f"{rule} --queue-bypass" for rule in queues(steering.offloaded())),
        ),
    )


def _midstream(steering: Steering) -> Chain:
    """Rules for segments of TCP connections that began elsewhere.

    They wait with established traffic: strays displace no first packets, and a full queue drops
    them, so that their clients repeat them.
    """
    return Chain(
        "PARAGLIDER-MIDSTREAM",
        "segments of unknown connections, to be adopted; without a worker: passed, the host resets",
        (
            "-m conntrack --ctstatus CONFIRMED -j RETURN",
            steering.by_source(),
            *(f"{rule} --queue-bypass" for rule in queues(steering.queues())),
        ),
    )

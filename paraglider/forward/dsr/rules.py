"""The iptables rules of ``forward: dsr``: the clients' packets pass a worker's queue.

Lives here: what is kept out of conntrack (which would see one direction alone), what is queued and
to which worker, what is accepted, and what is rejected.
Rules: pure. Uses chains of its own, PARAGLIDER-DSR*, since other methods never share a VIP with
dsr. Only the clients' packets are steered; the answers do not pass this host. A request that no
worker could take is dropped. A packet without a mark of ours is rejected: no local address owns the
VIP.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.forward.rule_parts import MethodRules, OpeningsPart
from paraglider.netfilter.rules.marks import DSR_BASE, LEASE, MASK, ROUTED
from paraglider.netfilter.rules.matches import (
    any_icmp,
    echo,
    errors,
    exempt,
    queues,
    to_queues,
    to_requests,
)
from paraglider.netfilter.rules.prefix_chains import branched
from paraglider.netfilter.rules.ruleset import Chain, Table
from paraglider.netfilter.rules.steering import Steering
from paraglider.netfilter.rules.traffic import RuleTraffic

DECIDED = f"-m mark --mark {ROUTED}"
"""The match of packets with a backend, by a worker's mark or a lease."""

OPENINGS = OpeningsPart(
    decided=f"meta mark & 0x{MASK:08x} == 0x{DSR_BASE:08x}",
    heard=f"meta mark & 0x{MASK | LEASE:08x} == 0x{DSR_BASE | LEASE:08x}",
)
"""How new flows are limited."""


def dsr_rules(dsr: RuleTraffic, family: int, steering: Steering) -> MethodRules:
    """The rules of ``dsr``, which has a service."""
    return MethodRules((_raw(dsr, family), _mangle(dsr, family, steering), _filter(dsr)))


def _raw(dsr: RuleTraffic, family: int) -> Table:
    others = f"{any_icmp(family)} -g PARAGLIDER-DSR-RAW-ICMP"
    ends, chains = to_requests(
        "PARAGLIDER-DSR-RAW", dsr, "PARAGLIDER-DSR-NOTRACK", rest="PARAGLIDER-DSR-OTHERS"
    )
    untracked = (
        Chain(
            "PARAGLIDER-DSR-RAW",
            "what goes to the VIPs of dsr is not tracked: the answers do not come by",
            (
                "-i lo -j RETURN",
                *exempt(dsr.exempt),
                *ends,
                "-g PARAGLIDER-DSR-OTHERS" if chains else others,
            ),
        ),
        *chains,
        *((Chain("PARAGLIDER-DSR-OTHERS", "all but requests", (others,)),) if chains else ()),
        Chain(
            "PARAGLIDER-DSR-RAW-ICMP",
            "nor are the ICMP errors and the ICMP echo of it",
            (
                *(f"{match} -g PARAGLIDER-DSR-NOTRACK" for match in echo(dsr, family)),
                *(f"{match} -g PARAGLIDER-DSR-NOTRACK" for match in _errors(dsr, family)),
            ),
        ),
        Chain("PARAGLIDER-DSR-NOTRACK", "out of conntrack", ("-j CT --notrack",)),
    )
    return Table("raw", untracked, jumps=(("PREROUTING", "PARAGLIDER-DSR-RAW"),))


def _mangle(dsr: RuleTraffic, family: int, steering: Steering) -> Table:
    ends, of_ends = to_requests("PARAGLIDER-DSR", dsr, "PARAGLIDER-DSR-TO")
    chains = (
        Chain(
            "PARAGLIDER-DSR",
            "requests to the VIPs of dsr, and errors about answers; what has a lease has its mark",
            (
                "-i lo -j RETURN",
                f"{DECIDED} -j RETURN",
                *exempt(dsr.exempt),
                *ends,
                f"{any_icmp(family)} -g PARAGLIDER-DSR-ICMP",
            ),
        ),
        *of_ends,
        Chain(
            "PARAGLIDER-DSR-ICMP",
            "echo requests to the VIPs, and the errors",
            (
                *(f"{match} -g PARAGLIDER-DSR-TO" for match in echo(dsr, family)),
                *(f"{match} -g PARAGLIDER-DSR-ERROR" for match in _errors(dsr, family)),
            ),
        ),
        Chain(
            "PARAGLIDER-DSR-TO",
            "the client is the source",
            to_queues(family, steering.by_source(), "PARAGLIDER-DSR-OPEN", "PARAGLIDER-DSR-QUEUE"),
        ),
        Chain(
            "PARAGLIDER-DSR-ERROR",
            "the packet inside is an answer: the client is its destination",
            (steering.by_destination(), "-g PARAGLIDER-DSR-QUEUE"),
        ),
        Chain(
            "PARAGLIDER-DSR-QUEUE",
            "a queue has the number of its worker's core; without a worker: dropped",
            queues(steering.queues()),
        ),
        Chain(
            "PARAGLIDER-DSR-OPEN",
            "what may open a flow waits in a shorter queue of its own, that of the core + 4096",
            (steering.by_source(), *queues(steering.openings())),
        ),
        Chain(
            "PARAGLIDER-DSR-DEFRAG",
            "no packet comes here: that the match exists makes the kernel reassemble fragments",
            ("-m socket --nowildcard -j RETURN",),
        ),
    )
    return Table("mangle", chains, jumps=(("PREROUTING", "PARAGLIDER-DSR"),))


def _filter(dsr: RuleTraffic) -> Table:
    vips = [(vip, f"-d {vip}") for vip in dsr.addresses]
    refused, chains = branched("PARAGLIDER-DSR-VIPS", vips, "PARAGLIDER-DSR-REFUSE", "-d")
    verdicts = (
        Chain(
            "PARAGLIDER-DSR-ACCEPT",
            "what has a backend's mark passes, whatever the policy; the VIPs are nobody else's",
            (f"{DECIDED} -j ACCEPT", *refused),
        ),
        *chains,
        Chain(
            "PARAGLIDER-DSR-REFUSE",
            "as a host does that has the VIP: of TCP only a RST ends what is under way",
            ("-p tcp -j REJECT --reject-with tcp-reset", "-j REJECT"),
        ),
    )
    return Table("filter", verdicts, jumps=(("FORWARD", "PARAGLIDER-DSR-ACCEPT"),))


def _errors(dsr: RuleTraffic, family: int) -> Iterable[str]:
    return (f"-d {vip} {error}" for vip in dsr.addresses for error in errors(family))

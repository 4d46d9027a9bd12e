"""The iptables rules of ``forward: nat``: both directions of its packets pass a worker's queue.

Lives here: the packets that bypass conntrack, that are queued and to which worker, and that are
accepted.
Rules: pure. A request or reply that no worker could take is dropped, since the local stack would
answer it with RST. An ICMP error is accepted: it does no harm unchanged, and may belong to a flow
of another program.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.forward.rule_parts import (
    MethodRules,
    OpeningsPart,
    RuleScope,
    SharedPart,
    shares_chains,
)
from paraglider.netfilter.rules.marks import LONG, LONG_BASE, MASK
from paraglider.netfilter.rules.matches import (
    ICMP,
    any_icmp,
    echo,
    errors,
    exempt,
    queues,
    requests,
    to_queues,
    to_requests,
)
from paraglider.netfilter.rules.prefix_chains import branched
from paraglider.netfilter.rules.ruleset import Chain, Table
from paraglider.netfilter.rules.steering import ANSWERS, MARK_BASE, MARK_MASK, OURS, Steering
from paraglider.netfilter.rules.traffic import RuleTraffic, port_matches, without

DECIDED = f"-m mark --mark {OURS}"
"""The match of packets that a worker has rewritten."""

OPENINGS = OpeningsPart(
    decided=f"meta mark & 0x{MARK_MASK:08x} == 0x{MARK_BASE:08x}",
    answers=True,
    long=f"meta mark & 0x{MASK:08x} == 0x{LONG_BASE:08x}",
)
"""How new flows are limited."""

_ECHO_REPLY = {4: 0, 6: 129}
_UNREPLACED = (f"-m mark --mark {LONG} -j DROP",)


def nat_rules(nat: RuleTraffic, scope: RuleScope) -> MethodRules:
    """The rules of ``nat``, at least one service."""
    family = scope.family
    some, every = (
        to_requests(f"PARAGLIDER-{name}", nat, "PARAGLIDER-TO", all_ports=all_ports)
        for name, all_ports in (("SOME", False), ("ALL", True))
    )
    shared = SharedPart(
        some,
        every,
        echo=tuple(f"{match} -g PARAGLIDER-TO" for match in echo(nat, family)),
        errors=tuple(
            f"-d {vip} {error} -g PARAGLIDER-TO-ERROR"
            for vip in nat.addresses
            for error in errors(family)
        ),
        accepted=(f"{DECIDED} -j ACCEPT", *_UNREPLACED),
    )
    return MethodRules((_raw(nat, scope), _mangle(nat, scope), _filter()), shared)


def _raw(nat: RuleTraffic, scope: RuleScope) -> Table:
    family = scope.family
    tracked = scope.traffic(lambda method: method.conntracked)
    # An error about a flow of conntrack's is its to translate; one about a nat flow of the same
    # address is then tracked too, as belonging to nothing, and still goes to its worker.
    nat_alone = without(nat, tracked)
    ends = [
        *(f"-d {vip}" for vip in nat_alone.addresses),
        *(f"-s {backend}" for backend in nat_alone.backends),
    ]
    icmp = any_icmp(family)
    replies, of_replies = _replies(nat, "PARAGLIDER-NOTRACK")
    after = Chain(
        "PARAGLIDER-OTHERS",
        "all but requests to some ports of a VIP",
        (
            *(f"{match} -j RETURN" for match in requests(tracked)),
            *scope.local,
            *(f"{match} -g PARAGLIDER-NOTRACK" for match in requests(nat, all_ports=True)),
            *replies,
            f"{icmp} -g PARAGLIDER-ICMP",
        ),
    )
    some, of_some = to_requests(
        "PARAGLIDER-RAW", nat, "PARAGLIDER-NOTRACK", all_ports=False, rest=after.name
    )
    return Table(
        "raw",
        chains=(
            Chain(
                "PARAGLIDER",
                "balanced traffic is not tracked: a worker knows its flows",
                (
                    "-i lo -j RETURN",
                    *exempt(nat.exempt),
                    *some,
                    *((f"-g {after.name}",) if of_some else after.rules),
                ),
            ),
            *((*of_some, after) if of_some else ()),
            *of_replies,
            Chain(
                "PARAGLIDER-ICMP",
                "nor are the ICMP errors and the ICMP echo of it",
                (
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in echo(nat, family)),
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in _echo_back(nat, family)),
                    *(f"{error} -j PARAGLIDER-ERROR" for error in errors(family)),
                ),
            ),
            Chain(
                "PARAGLIDER-ERROR",
                "an error to a VIP, or of a backend",
                tuple(f"{end} -g PARAGLIDER-NOTRACK" for end in ends),
            ),
            Chain("PARAGLIDER-NOTRACK", "out of conntrack", ("-j CT --notrack",)),
        ),
        jumps=(("PREROUTING", "PARAGLIDER"),),
    )


def _mangle(nat: RuleTraffic, scope: RuleScope) -> Table:
    defrag = Chain(
        "PARAGLIDER-DEFRAG",
        "no packet comes here: that the match exists makes the kernel reassemble fragments",
        ("-m socket --nowildcard -j RETURN",),
    )
    steering = scope.steering(shares_chains)
    return Table(
        "mangle",
        (*_back(nat, scope), *_steering(steering, scope.family), defrag),
        (("FORWARD", "PARAGLIDER-FWD"), ("OUTPUT", "PARAGLIDER-OUT")),
    )


def _back(nat: RuleTraffic, scope: RuleScope) -> tuple[Chain, ...]:
    family = scope.family
    exempted = exempt(nat.exempt)
    replies, of_replies = _replies(nat, "PARAGLIDER-BACK")
    return (
        Chain(
            "PARAGLIDER-FWD",
            "replies of the backends; what has a mark was rewritten",
            (
                *(f"{match} -j RETURN" for match in scope.decided),
                *exempted,
                *replies,
                f"{any_icmp(family)} -g PARAGLIDER-FWD-ICMP",
            ),
        ),
        *of_replies,
        Chain(
            "PARAGLIDER-FWD-ICMP",
            "echo replies of the backends, and errors about requests",
            (
                *(f"{match} -g PARAGLIDER-BACK" for match in _echo_back(nat, family)),
                *(f"{error} -g PARAGLIDER-BACK-ERROR" for error in errors(family)),
            ),
        ),
        Chain(
            "PARAGLIDER-OUT",
            "the host's own errors about requests: packet too big, time exceeded",
            (
                "-o lo -j RETURN",
                *exempted,
                *(f"{error} -g PARAGLIDER-BACK-ERROR" for error in errors(family)),
            ),
        ),
    )


def _steering(steering: Steering, family: int) -> tuple[Chain, ...]:
    established = queues(steering.queues())
    return (
        Chain(
            "PARAGLIDER-TO",
            "the client is the source",
            to_queues(family, steering.by_source(), "PARAGLIDER-TO-OPEN", "PARAGLIDER-QUEUE"),
        ),
        Chain(
            "PARAGLIDER-TO-OPEN",
            "the same, of what may open a flow",
            (steering.by_source(), "-g PARAGLIDER-OPEN"),
        ),
        Chain(
            "PARAGLIDER-BACK",
            "the client is the destination",
            (
                f"{ANSWERS} -g PARAGLIDER-BACK-OPEN",
                steering.by_destination(),
                "-g PARAGLIDER-QUEUE",
            ),
        ),
        Chain(
            "PARAGLIDER-BACK-OPEN",
            "the same, of what answers an opening",
            (steering.by_destination(), "-g PARAGLIDER-OPEN"),
        ),
        Chain(
            "PARAGLIDER-TO-ERROR",
            "the packet inside is a reply: the client is its destination",
            (steering.by_destination(), "-g PARAGLIDER-QUEUE-ERROR"),
        ),
        Chain(
            "PARAGLIDER-BACK-ERROR",
            "the packet inside is a request: the client is its source",
            (steering.by_source(), "-g PARAGLIDER-QUEUE-ERROR"),
        ),
        Chain(
            "PARAGLIDER-QUEUE",
            "a queue has the number of its worker's core; without a worker: dropped",
            established,
        ),
        Chain(
            "PARAGLIDER-OPEN",
            "what may open a flow waits in a shorter queue of its own, that of the core + 4096",
            queues(steering.openings()),
        ),
        Chain(
            "PARAGLIDER-QUEUE-ERROR",
            "the same; without a worker: passed",
            tuple(f"{rule} --queue-bypass" for rule in established),
        ),
    )


def _filter() -> Table:
    long = Chain(
        "PARAGLIDER-LONG",
        "a long packet that the kernel was to rewrite, without our nft table: not the host's own",
        _UNREPLACED,
    )
    return Table("filter", (long,), jumps=(("INPUT", long.name),))


def _replies(traffic: RuleTraffic, target: str) -> tuple[tuple[str, ...], tuple[Chain, ...]]:
    """Rules that send the replies to ``target``, and the chains that they take."""
    matches = [
        (end.address, f"-s {end.address} {match}")
        for end in traffic.replies
        for match in port_matches(end.protocol, "source", end.ports)
    ]
    return branched("PARAGLIDER-REPLIES", matches, target)


def _echo_back(traffic: RuleTraffic, family: int) -> Iterable[str]:
    for backend in traffic.echo_replies:
        yield f"-s {backend} {ICMP[family]} {_ECHO_REPLY[family]}"

"""The rules of one family: those of its ``forward: nat`` and ``forward: offload`` services here.

Lives here: which packets are kept out of conntrack, which are queued and to which worker, which
are let through the host's firewall. What becomes of an offloaded flow afterwards is ``nft``'s;
the rules of ``forward: dsr`` are ``dsr``'s, and only put beside these.
Rules: only chains named PARAGLIDER*; every match of traffic ends in a goto (``-g``), which leaves
our chain after it, so that no packet is steered twice. A request or reply of nat that no worker
could take is dropped (the local stack would answer it with RST); an ICMP error is let pass, for
untouched it does no harm, and it may belong to a flow that is none of ours; a first packet of
offload is let pass, for the kernel then decides by itself. Where services share a VIP, some ports
come before all ports.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from paraglider.config.model import Config
from paraglider.netfilter.rules.dsr import dsr_tables
from paraglider.netfilter.rules.marks import LONG, OFFLOADED, ROUTED
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
from paraglider.netfilter.rules.ruleset import Chain, RuleSet, Table, joined
from paraglider.netfilter.rules.steering import ANSWERS, OURS, Steering, steered_by_client
from paraglider.netfilter.rules.traffic import Traffic, port_matches, traffic_of, without

_ECHO_REPLY = {4: 0, 6: 129}
_REDIRECT = {4: 5, 6: 137}  # RFC 792; RFC 4861, 4.5
_UNREPLACED = (f"-m mark --mark {LONG} -j DROP",)


def queue_rules(config: Config, family: int, cores: tuple[int, ...], seed: int) -> RuleSet | None:
    """The rule set of ``family`` (4 or 6), or None when no service of it needs a queue.

    ``cores`` are the workers' cores in order; ``seed`` is the 32-bit seed of the steering.
    """
    nat = traffic_of(config, family, "nat")
    offload = traffic_of(config, family, "offload")
    dsr = traffic_of(config, family, "dsr")
    services = nat.services + offload.services
    tables: tuple[Table, ...] = ()
    if services:
        steering = Steering(cores, seed, steered_by_client(services))
        local = _local(traffic_of(config, family, "proxy"), nat, offload)
        raw = (_raw(nat, offload, family, local),) if nat.services else ()
        mangle = _mangle(nat, offload, dsr, family, steering, local)
        tables = (*raw, mangle, _filter(nat, offload))
    if dsr.services:
        steering = Steering(cores, seed, steered_by_client(dsr.services))
        tables = joined((*tables, *dsr_tables(dsr, family, steering)))
    return RuleSet(family, joined((*tables, no_redirects(family)))) if tables else None


def _local(proxy: Traffic, *others: Traffic) -> tuple[str, ...]:
    """What the host itself accepts of VIPs whose other ports are somebody else's."""
    whole = {end.address for other in others for end in other.vips if end.all_ports}
    ends = tuple(end for end in proxy.vips if end.address in whole)
    return tuple(f"{match} -j RETURN" for match in requests(replace(proxy, vips=ends)))


def _raw(nat: Traffic, offload: Traffic, family: int, local: tuple[str, ...]) -> Table:
    # An error about an offloaded flow is conntrack's to translate; one about a nat flow of the
    # same address is then tracked too, as belonging to nothing, and still goes to its worker.
    nat_alone = without(nat, offload)
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
            *(f"{match} -j RETURN" for match in requests(offload)),
            *local,
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


def _mangle(
    nat: Traffic,
    offload: Traffic,
    dsr: Traffic,
    family: int,
    steering: Steering,
    local: tuple[str, ...],
) -> Table:
    defrag = Chain(
        "PARAGLIDER-DEFRAG",
        "no packet comes here: that the match exists makes the kernel reassemble fragments",
        ("-m socket --nowildcard -j RETURN",),
    )
    chains = [*_pre(nat, offload, family, local)]
    jumps = [("PREROUTING", "PARAGLIDER-PRE")]
    if nat.services:
        chains += [*_back(nat, offload, dsr, family), *_steering(steering, family), defrag]
        jumps += [("FORWARD", "PARAGLIDER-FWD"), ("OUTPUT", "PARAGLIDER-OUT")]
    if offload.services:
        chains.append(_first_packets(steering))
    return Table("mangle", tuple(chains), tuple(jumps))


def _pre(nat: Traffic, offload: Traffic, family: int, local: tuple[str, ...]) -> tuple[Chain, ...]:
    segments = "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN"
    known = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    nat_to, offload_to = "-g PARAGLIDER-TO", "-g PARAGLIDER-NEW"
    some, every, some_new, every_new = (
        to_requests(f"PARAGLIDER-{name}", traffic, target, all_ports=all_ports)
        for name, traffic, target, all_ports in (
            ("SOME", nat, "PARAGLIDER-TO", False),
            ("ALL", nat, "PARAGLIDER-TO", True),
            ("SOME-NEW", offload, "PARAGLIDER-NEW", False),
            ("ALL-NEW", offload, "PARAGLIDER-NEW", True),
        )
    )
    icmp = (
        *(f"{match} {nat_to}" for match in echo(nat, family)),
        *(f"{match} {offload_to}" for match in echo(offload, family)),
        *(
            f"-d {vip} {error} -g PARAGLIDER-TO-ERROR"
            for vip in nat.addresses
            for error in errors(family)
        ),
    )
    pre = Chain(
        "PARAGLIDER-PRE",
        "requests to the VIPs, and errors about replies; not the host's own",
        (
            # Ahead of all the rest: nearly every packet of an offloaded flow ends here. The first
            # of the two is some 100 ns cheaper, but nat wants to see every segment.
            *((segments,) if not nat.services else ()),
            *((known,) if offload.services else ()),
            "-i lo -j RETURN",
            *exempt((nat if nat.services else offload).exempt),
            *some[0],
            *some_new[0],
            *local,
            *every[0],
            *every_new[0],
            *((f"{any_icmp(family)} -g PARAGLIDER-PRE-ICMP",) if icmp else ()),
        ),
    )
    of_icmp = Chain("PARAGLIDER-PRE-ICMP", "echo requests to the VIPs, and the errors", icmp)
    branches = (*some[1], *some_new[1], *every[1], *every_new[1])
    return (pre, *branches, of_icmp) if icmp else (pre, *branches)


def _back(nat: Traffic, offload: Traffic, dsr: Traffic, family: int) -> tuple[Chain, ...]:
    exempted = exempt(nat.exempt)
    carried = f"-m connmark --mark {OFFLOADED} -j RETURN"
    replies, of_replies = _replies(nat, "PARAGLIDER-BACK")
    return (
        Chain(
            "PARAGLIDER-FWD",
            "replies of the backends; what has a mark was rewritten",
            (
                f"-m mark --mark {OURS} -j RETURN",
                *((f"-m mark --mark {ROUTED} -j RETURN",) if dsr.services else ()),
                *((carried,) if offload.services else ()),
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


def _first_packets(steering: Steering) -> Chain:
    """Where the first packets of offloaded flows go.

    A datagram that follows a first one unanswered is NEW too: what has left the host once
    (CONFIRMED) has its backend. So has a SYN that comes again, but a worker is to hear of it, for
    it speaks against the backend; the kernel does not ask for a backend twice. What has a worker's
    mark already is more than the workers are to be asked about (``openings``).
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


def _filter(nat: Traffic, offload: Traffic) -> Table:
    rewritten = (f"-m mark --mark {OURS} -j ACCEPT", *_UNREPLACED) if nat.services else ()
    carried = (f"-m connmark --mark {OFFLOADED} -j ACCEPT",) if offload.services else ()
    accepted = accept_table((*rewritten, *carried))
    if not nat.services:
        return accepted
    long = Chain(
        "PARAGLIDER-LONG",
        "a long packet that the kernel was to rewrite, without our nft table: not the host's own",
        _UNREPLACED,
    )
    jumps = (*accepted.jumps, ("INPUT", long.name))
    return Table(accepted.name, (*accepted.chains, long), jumps)


def accept_table(rules: tuple[str, ...]) -> Table:
    """The part of ``filter`` that has ``rules`` decide ahead of the host's own."""
    accept = Chain(
        "PARAGLIDER-ACCEPT", "balanced packets pass, whatever the policy of FORWARD", rules
    )
    return Table("filter", (accept,), jumps=(("FORWARD", accept.name),))


def no_redirects(family: int) -> Table:
    """The part of ``filter`` by which the host sends no ICMP redirects.

    Where packets of a backend or a client come in and go on by one link the kernel would tell of
    the shorter way, past the balancer. IPv6 has no parameter against it (Linux,
    net/ipv6/ip6_output.c: ip6_forward); that of IPv4 cannot be written in every container. It is
    all redirects, as with the parameter: their destination may be any client.
    """
    redirects = Chain(
        "PARAGLIDER-REDIRECT",
        "nobody is told of a way past the balancer",
        (f"{ICMP[family]} {_REDIRECT[family]} -j DROP",),
    )
    return Table("filter", (redirects,), jumps=(("OUTPUT", redirects.name),))


def _replies(traffic: Traffic, target: str) -> tuple[tuple[str, ...], tuple[Chain, ...]]:
    """Rules that send the replies to ``target``, and the chains that they take."""
    matches = [
        (end.address, f"-s {end.address} {match}")
        for end in traffic.replies
        for match in port_matches(end.protocol, "source", end.ports)
    ]
    return branched("PARAGLIDER-REPLIES", matches, target)


def _echo_back(traffic: Traffic, family: int) -> Iterable[str]:
    for backend in traffic.echo_replies:
        yield f"-s {backend} {ICMP[family]} {_ECHO_REPLY[family]}"

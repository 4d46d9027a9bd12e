"""The rules of the ``forward: nat`` and ``forward: offload`` services of one family.

Lives here: which packets are kept out of conntrack, which are queued and to which worker, which
are let through the host's firewall. What becomes of an offloaded flow afterwards is ``nft``'s.
Rules: only chains named PARAGLIDER*; every match of traffic ends in a goto (``-g``), which leaves
our chain after it, so that no packet is steered twice. A request or reply of nat that no worker
could take is dropped (the local stack would answer it with RST); an ICMP error is let pass, for
untouched it does no harm, and it may belong to a flow that is none of ours; a first packet of
offload is let pass, for the kernel then decides by itself. Where services share a VIP, some ports
come before all ports.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.config.model import Config
from paraglider.config.types import Exempt
from paraglider.rules.marks import OFFLOADED
from paraglider.rules.ruleset import Chain, RuleSet, Table
from paraglider.rules.steering import OURS, Steering, steered_by_client
from paraglider.rules.traffic import Traffic, port_matches, traffic_of, without

_ICMP = {4: "-p icmp -m icmp --icmp-type", 6: "-p ipv6-icmp -m icmp6 --icmpv6-type"}
# RFC 792: unreachable, time exceeded, parameter problem. RFC 4443: unreachable, packet too big,
# time exceeded, parameter problem.
_ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}


def queue_rules(config: Config, family: int, cores: tuple[int, ...], seed: int) -> RuleSet | None:
    """The rule set of ``family`` (4 or 6), or None when no service of it needs a queue.

    ``cores`` are the workers' cores in order; ``seed`` is the 32-bit seed of the steering.
    """
    nat = traffic_of(config, family, "nat")
    offload = traffic_of(config, family, "offload")
    services = nat.services + offload.services
    if not services:
        return None
    steering = Steering(cores, seed, steered_by_client(services))
    raw = (_raw(nat, offload, family),) if nat.services else ()
    return RuleSet(
        family,
        (*raw, _mangle(nat, offload, family, steering), _filter(nat, offload)),
    )


def _raw(nat: Traffic, offload: Traffic, family: int) -> Table:
    errors = [f"{_ICMP[family]} {kind}" for kind in _ERRORS[family]]
    # An error about an offloaded flow is conntrack's to translate; one about a nat flow of the
    # same address is then tracked too, as belonging to nothing, and still goes to its worker.
    nat_alone = without(nat, offload)
    ends = [
        *(f"-d {vip}" for vip in nat_alone.addresses),
        *(f"-s {backend}" for backend in nat_alone.backends),
    ]
    icmp = _ICMP[family].partition(" -m")[0]
    return Table(
        "raw",
        chains=(
            Chain(
                "PARAGLIDER",
                "balanced traffic is not tracked: a worker knows its flows",
                (
                    "-i lo -j RETURN",
                    *_exempt(nat.exempt),
                    *(
                        f"{match} -g PARAGLIDER-NOTRACK"
                        for match in _requests(nat, all_ports=False)
                    ),
                    *(f"{match} -j RETURN" for match in _requests(offload)),
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in _requests(nat, all_ports=True)),
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in _replies(nat)),
                    f"{icmp} -g PARAGLIDER-ICMP",
                ),
            ),
            Chain(
                "PARAGLIDER-ICMP",
                "nor are the ICMP errors and the ICMP echo of it",
                (
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in _echo(nat, family)),
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in _echo_back(nat, family)),
                    *(f"{error} -j PARAGLIDER-ERROR" for error in errors),
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


def _mangle(nat: Traffic, offload: Traffic, family: int, steering: Steering) -> Table:
    defrag = Chain(
        "PARAGLIDER-DEFRAG",
        "no packet comes here: that the match exists makes the kernel reassemble fragments",
        ("-m socket --nowildcard -j RETURN",),
    )
    chains = [_pre(nat, offload, family)]
    jumps = [("PREROUTING", "PARAGLIDER-PRE")]
    if nat.services:
        chains += [*_back(nat, offload, family), *_steering(steering), defrag]
        jumps += [("FORWARD", "PARAGLIDER-FWD"), ("OUTPUT", "PARAGLIDER-OUT")]
    if offload.services:
        chains.append(_first_packets(steering))
    return Table("mangle", tuple(chains), tuple(jumps))


def _pre(nat: Traffic, offload: Traffic, family: int) -> Chain:
    errors = [f"{_ICMP[family]} {kind}" for kind in _ERRORS[family]]
    known = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    nat_to, offload_to = "-g PARAGLIDER-TO", "-g PARAGLIDER-NEW"
    return Chain(
        "PARAGLIDER-PRE",
        "requests to the VIPs, and errors about replies; not the host's own",
        (
            # Ahead of all the rest: nearly every packet of an offloaded flow ends here.
            *((known,) if offload.services else ()),
            "-i lo -j RETURN",
            *_exempt((nat if nat.services else offload).exempt),
            *(f"{match} {nat_to}" for match in _requests(nat, all_ports=False)),
            *(f"{match} {offload_to}" for match in _requests(offload, all_ports=False)),
            *(f"{match} {nat_to}" for match in _requests(nat, all_ports=True)),
            *(f"{match} {offload_to}" for match in _requests(offload, all_ports=True)),
            *(f"{match} {nat_to}" for match in _echo(nat, family)),
            *(f"{match} {offload_to}" for match in _echo(offload, family)),
            *(
                f"-d {vip} {error} -g PARAGLIDER-TO-ERROR"
                for vip in nat.addresses
                for error in errors
            ),
        ),
    )


def _back(nat: Traffic, offload: Traffic, family: int) -> tuple[Chain, ...]:
    errors = [f"{_ICMP[family]} {kind}" for kind in _ERRORS[family]]
    exempt = _exempt(nat.exempt)
    carried = f"-m connmark --mark {OFFLOADED} -j RETURN"
    return (
        Chain(
            "PARAGLIDER-FWD",
            "replies of the backends, and errors about requests; what has a mark was rewritten",
            (
                f"-m mark --mark {OURS} -j RETURN",
                *((carried,) if offload.services else ()),
                *exempt,
                *(f"{match} -g PARAGLIDER-BACK" for match in _replies(nat)),
                *(f"{match} -g PARAGLIDER-BACK" for match in _echo_back(nat, family)),
                *(f"{error} -g PARAGLIDER-BACK-ERROR" for error in errors),
            ),
        ),
        Chain(
            "PARAGLIDER-OUT",
            "the host's own errors about requests: packet too big, time exceeded",
            (
                "-o lo -j RETURN",
                *exempt,
                *(f"{error} -g PARAGLIDER-BACK-ERROR" for error in errors),
            ),
        ),
    )


def _first_packets(steering: Steering) -> Chain:
    """Where the first packets of offloaded flows go.

    A datagram that follows a first one unanswered is NEW too: what has left the host once
    (CONFIRMED) has its backend.
    """
    return Chain(
        "PARAGLIDER-NEW",
        "first packets, to be decided about; without a worker: passed, the kernel decides",
        (
            "-m conntrack ! --ctstate NEW -j RETURN",
            "-m conntrack --ctstatus CONFIRMED -j RETURN",
            steering.by_source(),
            *(f"{rule} --queue-bypass" for rule in _queues(steering)),
        ),
    )


def _queues(steering: Steering) -> tuple[str, ...]:
    return tuple(
        f"-m mark --mark 0x{mark:08x} -j NFQUEUE --queue-num {queue}"
        for mark, queue in steering.queues()
    )


def _steering(steering: Steering) -> tuple[Chain, ...]:
    queues = _queues(steering)
    return (
        Chain(
            "PARAGLIDER-TO",
            "the client is the source",
            (steering.by_source(), "-g PARAGLIDER-QUEUE"),
        ),
        Chain(
            "PARAGLIDER-BACK",
            "the client is the destination",
            (steering.by_destination(), "-g PARAGLIDER-QUEUE"),
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
            queues,
        ),
        Chain(
            "PARAGLIDER-QUEUE-ERROR",
            "the same; without a worker: passed",
            tuple(f"{rule} --queue-bypass" for rule in queues),
        ),
    )


def _filter(nat: Traffic, offload: Traffic) -> Table:
    rewritten = (f"-m mark --mark {OURS} -j ACCEPT",) if nat.services else ()
    carried = (f"-m connmark --mark {OFFLOADED} -j ACCEPT",) if offload.services else ()
    return accept_table((*rewritten, *carried))


def accept_table(rules: tuple[str, ...]) -> Table:
    """The part of ``filter`` that has ``rules`` decide ahead of the host's own."""
    accept = Chain(
        "PARAGLIDER-ACCEPT", "balanced packets pass, whatever the policy of FORWARD", rules
    )
    return Table("filter", (accept,), jumps=(("FORWARD", accept.name),))


def _requests(traffic: Traffic, *, all_ports: bool | None = None) -> Iterable[str]:
    """Matches of what goes to the VIPs: to all of their ports, to some of them, or (None) both."""
    for end in traffic.vips:
        if all_ports is None or end.all_ports == all_ports:
            for match in port_matches(end.protocol, "destination", end.ports):
                yield f"-d {end.address} {match}"


def _replies(traffic: Traffic) -> Iterable[str]:
    for end in traffic.replies:
        for match in port_matches(end.protocol, "source", end.ports):
            yield f"-s {end.address} {match}"


def _echo(traffic: Traffic, family: int) -> Iterable[str]:
    for vip in traffic.echo_vips:
        yield f"-d {vip} {_ICMP[family]} {_ECHO_REQUEST[family]}"


def _echo_back(traffic: Traffic, family: int) -> Iterable[str]:
    for backend in traffic.echo_replies:
        yield f"-s {backend} {_ICMP[family]} {_ECHO_REPLY[family]}"


def _exempt(endpoints: tuple[Exempt, ...]) -> tuple[str, ...]:
    rules: dict[str, None] = {}
    for end in endpoints:
        protocols = (end.protocol,) if end.protocol else ("tcp", "udp") if end.port else ("",)
        for option, port in (("-d", "--dport"), ("-s", "--sport")):
            for protocol in protocols:
                match = f" -p {protocol}" if protocol else ""
                if end.port:
                    match += f" -m {protocol} {port} {end.port}"
                rules[f"{option} {end.address}{match} -j RETURN"] = None
    return tuple(rules)

"""The rules of the ``forward: nat`` services of one family.

Lives here: which packets are kept out of conntrack, which are queued and to which worker, which
are let through the host's firewall.
Rules: only chains named PARAGLIDER*; every match of traffic ends in a goto (``-g``), which leaves
our chain after it, so that no packet is steered twice. A request or reply that no worker could
take is dropped (the local stack would answer it with RST); an ICMP error is let pass, for
untouched it does no harm, and it may belong to a flow that is none of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.config.model import Config
from paraglider.config.types import Exempt
from paraglider.rules.ruleset import Chain, RuleSet, Table
from paraglider.rules.steering import OURS, Steering, steered_by_client
from paraglider.rules.traffic import Traffic, nat_traffic, port_matches

_ICMP = {4: "-p icmp -m icmp --icmp-type", 6: "-p ipv6-icmp -m icmp6 --icmpv6-type"}
# RFC 792: unreachable, time exceeded, parameter problem. RFC 4443: unreachable, packet too big,
# time exceeded, parameter problem.
_ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
_ECHO_REQUEST = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}


def nat_rules(config: Config, family: int, cores: tuple[int, ...], seed: int) -> RuleSet | None:
    """The rule set of ``family`` (4 or 6), or None when it has no ``forward: nat`` service.

    ``cores`` are the workers' cores in order; ``seed`` is the 32-bit seed of the steering.
    """
    traffic = nat_traffic(config, family)
    if not traffic.services:
        return None
    steering = Steering(cores, seed, steered_by_client(traffic.services))
    return RuleSet(family, (_raw(traffic, family), _mangle(traffic, family, steering), _filter()))


def _raw(traffic: Traffic, family: int) -> Table:
    errors = [f"{_ICMP[family]} {kind}" for kind in _ERRORS[family]]
    ends = [
        *(f"-d {vip}" for vip in traffic.addresses),
        *(f"-s {backend}" for backend in traffic.backends),
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
                    *_exempt(traffic.exempt),
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in _requests(traffic)),
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in _replies(traffic)),
                    f"{icmp} -g PARAGLIDER-ICMP",
                ),
            ),
            Chain(
                "PARAGLIDER-ICMP",
                "nor are the ICMP errors and the ICMP echo of it",
                (
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in _echo(traffic, family)),
                    *(f"{match} -g PARAGLIDER-NOTRACK" for match in _echo_back(traffic, family)),
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


def _mangle(traffic: Traffic, family: int, steering: Steering) -> Table:
    defrag = Chain(
        "PARAGLIDER-DEFRAG",
        "no packet comes here: that the match exists makes the kernel reassemble fragments",
        ("-m socket --nowildcard -j RETURN",),
    )
    return Table(
        "mangle",
        chains=(*_entries(traffic, family), *_steering(steering), defrag),
        jumps=(
            ("PREROUTING", "PARAGLIDER-PRE"),
            ("FORWARD", "PARAGLIDER-FWD"),
            ("OUTPUT", "PARAGLIDER-OUT"),
        ),
    )


def _entries(traffic: Traffic, family: int) -> tuple[Chain, ...]:
    errors = [f"{_ICMP[family]} {kind}" for kind in _ERRORS[family]]
    exempt = _exempt(traffic.exempt)
    return (
        Chain(
            "PARAGLIDER-PRE",
            "requests to the VIPs, and errors about replies; not the host's own",
            (
                "-i lo -j RETURN",
                *exempt,
                *(f"{match} -g PARAGLIDER-TO" for match in _requests(traffic)),
                *(f"{match} -g PARAGLIDER-TO" for match in _echo(traffic, family)),
                *(
                    f"-d {vip} {error} -g PARAGLIDER-TO-ERROR"
                    for vip in traffic.addresses
                    for error in errors
                ),
            ),
        ),
        Chain(
            "PARAGLIDER-FWD",
            "replies of the backends, and errors about requests; what has a mark was rewritten",
            (
                f"-m mark --mark {OURS} -j RETURN",
                *exempt,
                *(f"{match} -g PARAGLIDER-BACK" for match in _replies(traffic)),
                *(f"{match} -g PARAGLIDER-BACK" for match in _echo_back(traffic, family)),
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


def _steering(steering: Steering) -> tuple[Chain, ...]:
    queues = tuple(
        f"-m mark --mark 0x{mark:08x} -j NFQUEUE --queue-num {queue}"
        for mark, queue in steering.queues()
    )
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


def _filter() -> Table:
    accept = Chain(
        "PARAGLIDER-ACCEPT",
        "what a worker rewrote passes, whatever the policy of FORWARD",
        (f"-m mark --mark {OURS} -j ACCEPT",),
    )
    return Table("filter", (accept,), jumps=(("FORWARD", accept.name),))


def _requests(traffic: Traffic) -> Iterable[str]:
    for end in traffic.vips:
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

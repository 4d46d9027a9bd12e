"""Parts of iptables rules that several forward methods share.

Lives here: the matches of requests, echoes and ICMP errors, the exempt packets, and the queues.
Rules: a match has no target, a rule has one; both are without a chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from paraglider.config.types import Exempt
from paraglider.netfilter.rules.prefix_chains import Match, branched
from paraglider.netfilter.rules.ruleset import Chain
from paraglider.netfilter.rules.steering import OPENS, UNKNOWN
from paraglider.netfilter.rules.traffic import RuleTraffic, port_matches

ICMP = {4: "-p icmp -m icmp --icmp-type", 6: "-p ipv6-icmp -m icmp6 --icmpv6-type"}
# RFC 792: unreachable, time exceeded, parameter problem. RFC 4443: unreachable, packet too big,
# time exceeded, parameter problem.
_ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
_ECHO_REQUEST = {4: 8, 6: 128}


def any_icmp(family: int) -> str:
    """The match of all ICMP of ``family``."""
    return ICMP[family].partition(" -m")[0]


def errors(family: int) -> tuple[str, ...]:
    """The ICMP errors of ``family``, a match each."""
    return tuple(f"{ICMP[family]} {kind}" for kind in _ERRORS[family])


def requests(traffic: RuleTraffic, *, all_ports: bool | None = None) -> Iterable[str]:
    """Matches of packets to the VIPs: to all of their ports, to some of them, or (None) both."""
    return (match for _, match in _requests(traffic, all_ports))


def to_requests(
    name: str,
    traffic: RuleTraffic,
    target: str,
    *,
    all_ports: bool | None = None,
    rest: str | None = None,
) -> tuple[tuple[str, ...], tuple[Chain, ...]]:
    """The rules by which ``requests`` go to ``target``, and the chains that they take: as of
    ``branches.branched``.
    """
    return branched(name, list(_requests(traffic, all_ports)), target, "-d", rest)


def _requests(traffic: RuleTraffic, all_ports: bool | None) -> Iterator[Match]:
    for end in traffic.vips:
        if all_ports is None or end.all_ports == all_ports:
            for match in port_matches(end.protocol, "destination", end.ports):
                yield end.address, f"-d {end.address} {match}"


def echo(traffic: RuleTraffic, family: int) -> Iterable[str]:
    """Matches of ICMP echo requests to the VIPs whose services have it."""
    for vip in traffic.echo_vips:
        yield f"-d {vip} {ICMP[family]} {_ECHO_REQUEST[family]}"


def exempt(endpoints: tuple[Exempt, ...]) -> tuple[str, ...]:
    """Rules by which packets of the exempt endpoints leave a chain, whichever end they are."""
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


def queues(numbers: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    """Rules that queue a packet by its worker's mark: ``Steering.queues`` or its ``openings``."""
    return tuple(
        f"-m mark --mark 0x{mark:08x} -j NFQUEUE --queue-num {queue}" for mark, queue in numbers
    )


def to_queues(family: int, steer: str, openings: str, others: str) -> tuple[str, ...]:
    """Rules that send requests, echo included, to the chain ``openings`` if they may open a flow,
    otherwise to ``others``, with the mark that the target ``steer`` sets.

    Steering comes last, because the mark before it has the kind of the packet.
    """
    return (
        f"{OPENS} -g {openings}",
        f"{any_icmp(family)} -g {openings}",
        f"-m mark --mark {UNKNOWN} -g {openings}",
        steer,
        f"-g {others}",
    )

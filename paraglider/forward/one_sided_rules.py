"""The iptables rules of a method for clients' packets only, which pass a worker's queue.

Lives here: ``one_sided_rules``: which packets bypass conntrack (which would see one direction
only), which are queued and to which worker, what happens to packets with a decision, and which
packets are rejected.
Rules: pure. Each method has its own chains, for example PARAGLIDER-DSR*, since it shares a VIP with
no other method. Only the clients' packets are steered; the answers do not pass this host. A request
that no worker could take is dropped. A packet without a decision is rejected: no local address owns
the VIP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

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


class OneSided(NamedTuple):
    """A method with one-sided flows: its name (``method``), the name of its ``chains`` after
    PARAGLIDER-, the match of ``decided`` packets, the ``target`` for them and its comment
    (``explained``). ``early`` ends the comment of the chain before the queue. ``queues`` are those
    of established traffic, and ``numbered`` explains their numbers.
    """

    method: str
    chains: str
    decided: str
    target: str
    explained: str
    early: str = ""
    queues: Callable[[Steering], tuple[tuple[int, int], ...]] = Steering.queues
    numbered: str = "a queue has the number of its worker's core"

    @property
    def prefix(self) -> str:
        """How the names of the chains begin."""
        return f"PARAGLIDER-{self.chains}"


def one_sided_rules(
    method: OneSided, traffic: RuleTraffic, family: int, steering: Steering
) -> tuple[Table, ...]:
    """The rules of the services with ``traffic``, at least one service."""
    return (
        _raw(method, traffic, family),
        _mangle(method, traffic, family, steering),
        _filter(method, traffic),
    )


def _raw(method: OneSided, traffic: RuleTraffic, family: int) -> Table:
    name = method.prefix
    others = f"{any_icmp(family)} -g {name}-RAW-ICMP"
    ends, chains = to_requests(f"{name}-RAW", traffic, f"{name}-NOTRACK", rest=f"{name}-OTHERS")
    untracked = (
        Chain(
            f"{name}-RAW",
            f"what goes to the VIPs of {method.method} is not tracked: the answers do not come by",
            (
                "-i lo -j RETURN",
                *exempt(traffic.exempt),
                *ends,
                f"-g {name}-OTHERS" if chains else others,
            ),
        ),
        *chains,
        *((Chain(f"{name}-OTHERS", "all but requests", (others,)),) if chains else ()),
        Chain(
            f"{name}-RAW-ICMP",
            "nor are the ICMP errors and the ICMP echo of it",
            (
                *(f"{match} -g {name}-NOTRACK" for match in echo(traffic, family)),
                *(f"{match} -g {name}-NOTRACK" for match in _errors(traffic, family)),
            ),
        ),
        Chain(f"{name}-NOTRACK", "out of conntrack", ("-j CT --notrack",)),
    )
    return Table("raw", untracked, jumps=(("PREROUTING", f"{name}-RAW"),))


def _mangle(method: OneSided, traffic: RuleTraffic, family: int, steering: Steering) -> Table:
    name = method.prefix
    ends, of_ends = to_requests(name, traffic, f"{name}-TO")
    chains = (
        Chain(
            name,
            f"requests to the VIPs of {method.method}, and errors about answers{method.early}",
            (
                "-i lo -j RETURN",
                f"{method.decided} -j RETURN",
                *exempt(traffic.exempt),
                *ends,
                f"{any_icmp(family)} -g {name}-ICMP",
            ),
        ),
        *of_ends,
        Chain(
            f"{name}-ICMP",
            "echo requests to the VIPs, and the errors",
            (
                *(f"{match} -g {name}-TO" for match in echo(traffic, family)),
                *(f"{match} -g {name}-ERROR" for match in _errors(traffic, family)),
            ),
        ),
        Chain(
            f"{name}-TO",
            "the client is the source",
            to_queues(family, steering.by_source(), f"{name}-OPEN", f"{name}-QUEUE"),
        ),
        Chain(
            f"{name}-ERROR",
            "the packet inside is an answer: the client is its destination",
            (steering.by_destination(), f"-g {name}-QUEUE"),
        ),
        Chain(
            f"{name}-QUEUE",
            f"{method.numbered}; without a worker: dropped",
            queues(method.queues(steering)),
        ),
        Chain(
            f"{name}-OPEN",
            "what may open a flow waits in a shorter queue of its own, that of the core + 4096",
            (steering.by_source(), *queues(steering.openings())),
        ),
        Chain(
            f"{name}-DEFRAG",
            "no packet comes here: that the match exists makes the kernel reassemble fragments",
            ("-m socket --nowildcard -j RETURN",),
        ),
    )
    return Table("mangle", chains, jumps=(("PREROUTING", name),))


def _filter(method: OneSided, traffic: RuleTraffic) -> Table:
    name = method.prefix
    vips = [(vip, f"-d {vip}") for vip in traffic.addresses]
    refused, chains = branched(f"{name}-VIPS", vips, f"{name}-REFUSE", "-d")
    verdicts = (
        Chain(
            f"{name}-ACCEPT",
            method.explained,
            (f"{method.decided} -j {method.target}", *refused),
        ),
        *chains,
        Chain(
            f"{name}-REFUSE",
            "as a host does that has the VIP: of TCP only a RST ends what is under way",
            ("-p tcp -j REJECT --reject-with tcp-reset", "-j REJECT"),
        ),
    )
    return Table("filter", verdicts, jumps=(("FORWARD", f"{name}-ACCEPT"),))


def _errors(traffic: RuleTraffic, family: int) -> Iterable[str]:
    return (f"-d {vip} {error}" for vip in traffic.addresses for error in errors(family))

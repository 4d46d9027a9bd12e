"""The rules of the ``forward: dsr`` services of one family.

Lives here: what is kept out of conntrack (which would see one direction alone), what is queued and
to which worker, what is let through the host's firewall, and what is refused.
Rules: chains of their own, PARAGLIDER-DSR*, since a VIP of dsr is no other forward's VIP. Only
what the clients send is steered; the answers pass elsewhere. A request that no worker could take
is dropped: the VIP is nobody's here. So is nothing passed on that has no mark of ours: it is
refused, for no host answers to the VIP on the way that it would take.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.rules.marks import ROUTED
from paraglider.rules.matches import echo, errors, exempt, queues, requests, to_queues
from paraglider.rules.ruleset import Chain, Table
from paraglider.rules.steering import Steering
from paraglider.rules.traffic import Traffic


def dsr_tables(dsr: Traffic, family: int, steering: Steering) -> tuple[Table, ...]:
    """The tables of ``dsr``, which has a service."""
    return (_raw(dsr, family), _mangle(dsr, family, steering), _filter(dsr))


def _raw(dsr: Traffic, family: int) -> Table:
    untracked = Chain(
        "PARAGLIDER-DSR-RAW",
        "what goes to the VIPs of dsr is not tracked: the answers do not come by",
        (
            "-i lo -j RETURN",
            *exempt(dsr.exempt),
            *(f"{match} -j CT --notrack" for match in _all(dsr, family)),
        ),
    )
    return Table("raw", (untracked,), jumps=(("PREROUTING", untracked.name),))


def _mangle(dsr: Traffic, family: int, steering: Steering) -> Table:
    chains = (
        Chain(
            "PARAGLIDER-DSR",
            "requests to the VIPs of dsr, and errors about answers; what has a lease has its mark",
            (
                "-i lo -j RETURN",
                f"-m mark --mark {ROUTED} -j RETURN",
                *exempt(dsr.exempt),
                *(f"{match} -g PARAGLIDER-DSR-TO" for match in requests(dsr)),
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


def _filter(dsr: Traffic) -> Table:
    verdicts = Chain(
        "PARAGLIDER-DSR-ACCEPT",
        "what has a backend's mark passes, whatever the policy; nobody else answers to the VIPs",
        (
            f"-m mark --mark {ROUTED} -j ACCEPT",
            # As a host does that has the VIP: of TCP only a RST ends what is under way.
            *(f"-d {vip} -p tcp -j REJECT --reject-with tcp-reset" for vip in dsr.addresses),
            *(f"-d {vip} -j REJECT" for vip in dsr.addresses),
        ),
    )
    return Table("filter", (verdicts,), jumps=(("FORWARD", verdicts.name),))


def _all(dsr: Traffic, family: int) -> Iterable[str]:
    yield from requests(dsr)
    yield from echo(dsr, family)
    yield from _errors(dsr, family)


def _errors(dsr: Traffic, family: int) -> Iterable[str]:
    return (f"-d {vip} {error}" for vip in dsr.addresses for error in errors(family))

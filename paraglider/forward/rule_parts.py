"""A forwarding method's part of the iptables rules of a family.

Lives here: ``RuleScope``, the input of the rules; ``SharedPart`` and ``MethodRules``, which
``ForwardMethod.rules`` returns; ``forward.queue_rules`` combines them.
Rules: pure. Methods whose VIPs are addresses of this host share the chains for all packets
(PARAGLIDER-PRE, PARAGLIDER-ACCEPT), because services of two of them may share a VIP; a method with
VIPs of its own has its own chains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from paraglider.config.model import Config
from paraglider.config.service import Method
from paraglider.netfilter.rules.matches import requests
from paraglider.netfilter.rules.ruleset import Chain, Table
from paraglider.netfilter.rules.steering import Steering, steered_by_client
from paraglider.netfilter.rules.traffic import RuleTraffic, traffic_of

Branch = tuple[tuple[str, ...], tuple[Chain, ...]]
"""Rules, and the chains that they jump to (``netfilter.rules.prefix_chains``)."""


def shares_chains(method: Method) -> bool:
    """Whether ``method`` shares the chains that see every packet."""
    return method.queued and method.owns_vip


@dataclass(frozen=True, slots=True)
class RuleScope:
    """The configuration and ``family`` (4 or 6) that rules are made for, the ``cores`` of the
    workers in order, the 32-bit ``seed`` of the steering, the ``methods`` with services of the
    family, in the order of the registry, and ``decided``, the matches of packets that a worker of
    theirs has decided about, the cheapest first.
    """

    config: Config
    family: int
    cores: tuple[int, ...]
    seed: int
    methods: tuple[Method, ...]
    decided: tuple[str, ...]
    _known: dict[tuple[Method, ...], RuleTraffic] = field(default_factory=dict)

    def traffic(self, chosen: Callable[[Method], bool]) -> RuleTraffic:
        """The traffic of the services whose method is ``chosen``; may be empty."""
        methods = tuple(method for method in self.methods if chosen(method))
        if methods not in self._known:
            self._known[methods] = traffic_of(
                self.config, self.family, lambda method: method in methods
            )
        return self._known[methods]

    def of(self, method: Method) -> RuleTraffic:
        """The traffic of the services of ``method``."""
        return self.traffic(lambda other: other is method)

    def steering(self, chosen: Callable[[Method], bool]) -> Steering:
        """How packets of the services whose method is ``chosen`` are steered to the workers."""
        by_client = steered_by_client(self.traffic(chosen).services)
        return Steering(self.cores, self.seed, by_client)

    @property
    def local(self) -> tuple[str, ...]:
        """Rules by which a chain returns packets to ports of local listeners, on VIPs all of whose
        other ports are balanced.
        """
        balanced = self.traffic(lambda method: method.queued)
        whole = {end.address for end in balanced.vips if end.all_ports}
        listened = self.traffic(lambda method: method.listens)
        ends = tuple(end for end in listened.vips if end.address in whole)
        return tuple(f"{match} -j RETURN" for match in requests(replace(listened, vips=ends)))


@dataclass(frozen=True, slots=True)
class SharedPart:
    """A method's part of the shared chains.

    ``early`` are the first rules of mangle/PREROUTING; ``some`` and ``every`` send requests to some
    and to all ports of a VIP to the method's chains, ``echo`` and ``errors`` ICMP packets;
    ``accepted`` are the rules of filter/FORWARD.
    """

    some: Branch
    every: Branch
    echo: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    early: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MethodRules:
    """A method's own ``tables``, and its part of the shared chains, if it has one."""

    tables: tuple[Table, ...] = ()
    shared: SharedPart | None = None


@dataclass(frozen=True, slots=True)
class OpeningsPart:
    """How a method's new flows are limited (``forward.openings``), as nft matches.

    ``decided`` are packets after the queue with a worker's decision, ``long`` those that the kernel
    is yet to rewrite; ``proven`` those of ``decided`` that prove that the client receives the
    answers, which a lease marks before the queue too. ``answers``: a worker rewrites the answers as
    well. ``hashed``: packets above the limits are not dropped, but left to the kernel's hash.
    """

    decided: str = ""
    long: str = ""
    proven: str = ""
    answers: bool = False
    hashed: bool = False

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The matches of all packets with a worker's decision."""
        return (self.decided, self.long) if self.long else (self.decided,)

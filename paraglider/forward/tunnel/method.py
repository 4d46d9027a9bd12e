"""``forward: tunnel``: packets go to the backend in an outer header; it answers directly."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.types import IPInterface
from paraglider.core.encapsulation import OVERHEAD
from paraglider.forward.datapath import Built, DatapathContext
from paraglider.forward.host_needs import HostNeeds
from paraglider.forward.one_sided_method import OneSidedMethod, carried
from paraglider.forward.rule_parts import MethodRules, RuleScope
from paraglider.forward.tunnel import host
from paraglider.forward.tunnel.build import build
from paraglider.forward.tunnel.checks import check_service
from paraglider.forward.tunnel.rules import DECIDED, OPENINGS, tunnel_rules
from paraglider.netfilter.rules.backend import Need

if TYPE_CHECKING:
    from paraglider.config.model import Config, Network, Service


class TunnelMethod(OneSidedMethod):
    """Clients' packets are encapsulated to the backends, which have the VIP."""

    name = "tunnel"
    options = frozenset({"return", "encapsulation", "carrier", "decide", "adopt"})
    sends = True

    decided = DECIDED
    openings = OPENINGS
    head = None
    merged = False
    at_xdp = False
    asks_for_source = True

    def datapath(self, place: DatapathContext) -> Built:
        """See ``ForwardMethod``."""
        return build(place)

    def check(self, path: Path, service: Service, network: Network) -> Iterable[Problem]:
        """See ``Method``."""
        return check_service(path, service, network)

    def describe(self, service: Service) -> str:
        """See ``Method``."""
        port = service.encapsulation.udp_port
        way = f"GUE, UDP port {port}" if port else f"IPv{service.family} in IPv{service.family}"
        leaves = f"in an outer header ({way}, {OVERHEAD[service.family][bool(port)]} bytes)"
        by_worker = f"a worker sends every packet of the clients on {leaves}"
        bpf = "" if service.carrier == "worker" else ", Linux 6.7 with BPF"
        bpf += " for speed" if service.carrier == "auto" else ""
        return (
            f"{carried(service, leaves, by_worker)}; packets pass routers on their way, and answers"
            " bypass this host; the backends see the client's address, have the VIP without"
            " answering ARP for it, and remove the outer header; needs NFQUEUE and raw sockets"
            f"{bpf}, no conntrack."
        )

    def rules(self, scope: RuleScope) -> MethodRules:
        """See ``ForwardMethod``."""
        steering = scope.steering(lambda method: method is self)
        return tunnel_rules(scope.of(self), scope.family, steering)

    def host_needs(self, config: Config, family: int) -> HostNeeds:
        """See ``ForwardMethod``: the VIPs are attracted."""
        return host.needs(config, family, self)

    def check_host(
        self,
        config: Config,
        family: int,
        addresses: Mapping[str, Sequence[IPInterface]],
        leaving: Collection[tuple[str, IPInterface]],
    ) -> None:
        """See ``ForwardMethod``."""
        host.check_host(config, family, self, addresses, leaving)

    def backend_need(self, service: Service) -> tuple[Need, str]:
        """See ``ForwardMethod``."""
        return "decapsulate", (
            "packets arrive in an outer header, with the VIP as the destination inside: the host"
            " must remove the header, and have the VIP without telling its neighbours"
        )

"""``forward: dsr``: packets go to the backend unchanged, by policy routing; it answers itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.types import IPInterface
from paraglider.forward.datapath import Built, DatapathContext
from paraglider.forward.dsr import host
from paraglider.forward.dsr.build import build
from paraglider.forward.dsr.checks import check_service
from paraglider.forward.dsr.leases import TABLE as LEASES
from paraglider.forward.dsr.leases import lease_table
from paraglider.forward.dsr.rules import DECIDED, OPENINGS, dsr_rules
from paraglider.forward.host_needs import HostNeeds, NftTable
from paraglider.forward.one_sided_method import OneSidedMethod, carried
from paraglider.forward.rule_parts import MethodRules, RuleScope
from paraglider.netfilter.rules.backend import Need
from paraglider.netfilter.rules.foreign import UNTRACKED

if TYPE_CHECKING:
    from paraglider.config.model import Config, Network, Service


class DsrMethod(OneSidedMethod):
    """Packets of the clients routed by marks to the backends, which hold the VIP."""

    name = "dsr"
    options = frozenset({"return", "carrier", "decide", "adopt"})
    neighbours = True

    decided = DECIDED
    openings = OPENINGS
    passing = (UNTRACKED,)
    table_names = (LEASES,)

    def datapath(self, place: DatapathContext) -> Built:
        """See ``ForwardMethod``."""
        return build(place)

    def check(self, path: Path, service: Service, network: Network) -> Iterable[Problem]:
        """See ``Method``."""
        return check_service(path, service, network)

    def describe(self, service: Service) -> str:
        """See ``Method``."""
        by_leases = (
            "a worker decides about a flow's first packets, and again after each lease; policy"
            " routing sends the client's packets on unchanged"
        )
        return (
            f"{carried(service, 'unchanged', by_leases)}; answers bypass this host; the backends"
            " see the client's address, must be this host's neighbours and have the VIP without"
            " answering ARP for it;"
            f" needs NFQUEUE and policy routing, {_needed(service)}, no conntrack."
        )

    def rules(self, scope: RuleScope) -> MethodRules:
        """See ``ForwardMethod``."""
        steering = scope.steering(lambda method: method is self)
        return dsr_rules(scope.of(self), scope.family, steering)

    def nft_tables(self, config: Config, family: int) -> Iterable[NftTable]:
        """See ``ForwardMethod``: the one with the leases."""
        text = lease_table(config, family)
        if text is not None:
            lacking = (
                f"the kernel or nft here cannot lease flows: every packet of the IPv{family} dsr"
                " services passes a worker"
            )
            yield NftTable(LEASES, text, "leases of flows", terse=True, lacking=lacking)

    def host_needs(self, config: Config, family: int) -> HostNeeds:
        """See ``ForwardMethod``: routes to the backends by marks, and proxy ARP for the VIPs."""
        return host.needs(config, family)

    def check_host(
        self,
        config: Config,
        family: int,
        addresses: Mapping[str, Sequence[IPInterface]],
        leaving: Collection[tuple[str, IPInterface]],
    ) -> None:
        """See ``ForwardMethod``."""
        host.check_host(config, family, addresses, leaving)

    def backend_need(self, service: Service) -> tuple[Need, str]:
        """See ``ForwardMethod``."""
        return "loopback", (
            "packets arrive with the VIP as their destination: the host must have it, without"
            " telling its neighbours"
        )


def _needed(service: Service) -> str:
    """What the kernel must have for ``service``, or for speed."""
    if not service.wants_bpf:
        return "nft for speed"
    more = {"auto": " or nft for speed", "xdp": ", drivers with XDP"}
    return f"Linux 6.6 with BPF{more.get(service.carrier, '')}"

"""``forward: offload``: a worker decides about a first packet, conntrack translates the flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraglider.config.model import Config
from paraglider.forward.base import ForwardMethod
from paraglider.forward.datapath import Built, DatapathContext
from paraglider.forward.offload.build import build
from paraglider.forward.offload.rules import DECIDED, OPENINGS, offload_rules
from paraglider.forward.offload.table import offload_table
from paraglider.forward.rule_parts import MethodRules, RuleScope
from paraglider.netfilter.rules.backend import ROUTE, Need
from paraglider.netfilter.rules.foreign import ANSWERS, FIRST
from paraglider.netfilter.rules.nft import TABLE, KernelTable

if TYPE_CHECKING:
    from paraglider.config.model import Service


class OffloadMethod(ForwardMethod):
    """Flows translated by the kernel's conntrack, after the decision of a worker."""

    name = "offload"
    options = frozenset({"snat", "adopt"})
    queued = True
    conntracked = True

    decided = DECIDED
    openings = OPENINGS
    passing = (FIRST, ANSWERS)
    table_names = (TABLE,)

    def datapath(self, place: DatapathContext) -> Built:
        """See ``ForwardMethod``."""
        return build(place)

    def describe(self, service: Service) -> str:
        """See ``Method``."""
        source = "the backends see the client's address and must answer through this host"
        if service.snat is not None:
            ours = "this host's " if service.snat_address is None else ""
            source = f"the backends see {ours}{service.snat}"
        parts = [
            "a worker decides about the first packet, the kernel carries the rest at its own speed",
            source,
            "needs NFQUEUE, nf_conntrack and nft",
        ]
        if service.counted:
            parts.append("live flows are counted by conntrack's events")
        if service.snat is not None and service.strategy_class.hashes:
            parts.append("flows that began at another balancer are reset, because of `snat`")
        elif service.adopts and service.strategy_class.hashes:
            parts.append(
                "flows that began at another balancer continue here, and those that return from it"
                " if both have nf_conntrack_tcp_be_liberal=1"
            )
        if service.affinity == "client":
            parts.append("a client is kept from its last new connection on")
        return "; ".join(parts) + "."

    def rules(self, scope: RuleScope) -> MethodRules:
        """See ``ForwardMethod``."""
        return offload_rules(scope.of(self), scope)

    def kernel_table(
        self, config: Config, family: int, hairpin: tuple[str, ...], seed: int
    ) -> KernelTable | None:
        """See ``ForwardMethod``."""
        return offload_table(config, family, hairpin, seed)

    def backend_need(self, service: Service) -> tuple[Need, str]:
        """See ``ForwardMethod``."""
        if service.snat is not None:
            why = f"packets come from the balancer's {service.snat}, and answers go there"
            return "nothing", why
        return ROUTE

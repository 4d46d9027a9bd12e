"""``forward: offload``: a worker decides about a first packet, conntrack translates the flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraglider.forward.base import ForwardMethod
from paraglider.forward.offload.rules import DECIDED, OPENINGS, offload_rules
from paraglider.forward.rule_parts import MethodRules, RuleScope

if TYPE_CHECKING:
    from paraglider.config.model import Service


class OffloadMethod(ForwardMethod):
    """Flows translated by the kernel's conntrack, after the decision of a worker."""

    name = "offload"
    options = frozenset({"snat"})
    queued = True
    conntracked = True

    decided = DECIDED
    openings = OPENINGS

    def describe(self, service: Service) -> str:
        """See ``Method``."""
        source = (
            f"the backends see {service.snat}"
            if service.snat is not None
            else "the backends see the client's address and must answer through this host"
        )
        parts = [
            "a worker decides about the first packet, the kernel carries the rest at its own speed",
            source,
            "needs NFQUEUE, nf_conntrack and nft",
        ]
        if service.counted:
            parts.append("live flows are counted by conntrack's events")
        if service.affinity == "client":
            parts.append("a client is kept from its last new connection on")
        return "; ".join(parts) + "."

    def rules(self, scope: RuleScope) -> MethodRules:
        """See ``ForwardMethod``."""
        return offload_rules(scope.of(self), scope)

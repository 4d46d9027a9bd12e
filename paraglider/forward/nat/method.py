"""``forward: nat``: every packet passes a worker and is rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paraglider.forward.base import ForwardMethod
from paraglider.forward.nat.rules import DECIDED, OPENINGS, nat_rules
from paraglider.forward.rule_parts import MethodRules, RuleScope

if TYPE_CHECKING:
    from paraglider.config.model import Service


class NatMethod(ForwardMethod):
    """Packets rewritten by a worker, both ways or, under ``return: direct``, one way."""

    name = "nat"
    options = frozenset({"return"})
    queued = True
    journalled = True

    decided = DECIDED
    openings = OPENINGS

    def describe(self, service: Service) -> str:
        """See ``Method``."""
        if service.return_ == "direct":
            return (
                "every packet of the client passes a worker and is rewritten, replies go past this"
                " host; the backends must answer as the VIP (`paraglider backend-setup`); needs"
                " NFQUEUE, no conntrack."
            )
        return (
            "every packet passes a worker and is rewritten, both ways, so a core sets the limit;"
            " the backends see the client's address and must answer through this host; needs"
            " NFQUEUE, no conntrack."
        )

    def rules(self, scope: RuleScope) -> MethodRules:
        """See ``ForwardMethod``."""
        return nat_rules(scope.of(self), scope)

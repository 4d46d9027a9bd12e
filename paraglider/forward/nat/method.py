"""``forward: nat``: every packet passes a worker and is rewritten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from paraglider.config.model import Config
from paraglider.forward.base import ForwardMethod
from paraglider.forward.datapath import Built, DatapathContext
from paraglider.forward.host_needs import NftTable
from paraglider.forward.nat.build import build
from paraglider.forward.nat.long import TABLE as LONG
from paraglider.forward.nat.long import long_table
from paraglider.forward.nat.rules import DECIDED, OPENINGS, nat_rules
from paraglider.forward.rule_parts import MethodRules, RuleScope
from paraglider.netfilter.rules.backend import ROUTE, Need
from paraglider.netfilter.rules.foreign import UNTRACKED

if TYPE_CHECKING:
    from paraglider.config.model import Service


class NatMethod(ForwardMethod):
    """Packets rewritten by a worker, both ways or, under ``return: direct``, one way."""

    name = "nat"
    options = frozenset({"return"})
    queued = True
    journalled = True
    head = None

    decided = DECIDED
    openings = OPENINGS
    passing = (UNTRACKED,)
    table_names = (LONG,)

    def datapath(self, place: DatapathContext) -> Built:
        """See ``ForwardMethod``."""
        return build(place)

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

    def nft_tables(self, config: Config, family: int) -> Iterable[NftTable]:
        """See ``ForwardMethod``: the one for packets too long for a queue."""
        text = long_table(config, family)
        if text is not None:
            yield NftTable(LONG, text, "packets too long for a queue")

    def backend_need(self, service: Service) -> tuple[Need, str]:
        """See ``ForwardMethod``."""
        if service.return_ == "direct":
            return "rewrite", (
                "answers go straight to the client, who talks to the VIP: they have to leave with"
                " it as their source"
            )
        return ROUTE

"""``forward: nat``: packets are rewritten, by a worker or, after its decision, by BPF."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from paraglider.config.deciding import exceptions, kernel_decides, why_python
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
    """Packets rewritten both ways or, under ``return: direct``, one way."""

    name = "nat"
    options = frozenset({"return", "carrier", "decide", "adopt"})
    queued = True
    journalled = True
    head = None
    long_table = LONG

    decided = DECIDED
    openings = OPENINGS
    passing = (UNTRACKED,)
    table_names = (LONG,)

    def datapath(self, place: DatapathContext) -> Built:
        """See ``ForwardMethod``."""
        return build(place)

    def describe(self, service: Service) -> str:
        """See ``Method``."""
        direct = service.return_ == "direct"
        backends = (
            "replies bypass this host; the backends must answer with the VIP as source"
            " (`paraglider backend-setup`)"
            if direct
            else "the backends see the client's address and must answer through this host"
        )
        return f"{_carried(service, direct)}; {backends}; {_needed(service)}."

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
                "answers go directly to the client, which expects them from the VIP: they must"
                " have it as their source"
            )
        return ROUTE


def _carried(service: Service, direct: bool) -> str:
    """What rewrites the packets of ``service``."""
    if kernel_decides(service):
        packets = "the client's packets" if direct else "the packets, both ways,"
        return (
            f"a BPF program in the kernel picks the backend and rewrites {packets} by a table that"
            f" a worker computes; {exceptions(service)}"
        )
    if service.wants_bpf:
        both = "" if direct else ", both ways"
        why = why_python(service)
        return (
            f"a worker decides about a flow's first packets ({why}), and a BPF program in the"
            f" kernel rewrites the others{both}; {exceptions(service)}"
        )
    if direct:
        return "every packet of the client passes a worker and is rewritten"
    return "every packet passes a worker and is rewritten, both ways, so a core sets the limit"


def _needed(service: Service) -> str:
    """What the kernel must have for ``service``."""
    if not service.wants_bpf:
        return "needs NFQUEUE, no conntrack"
    without = ", or the worker rewrites every packet" if service.carrier == "auto" else ""
    drivers = ", drivers with XDP" if service.carrier == "xdp" else ""
    return f"needs NFQUEUE, and Linux 6.6 with BPF{drivers}{without}; no conntrack"

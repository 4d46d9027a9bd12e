"""``forward: dsr``: packets go to the backend unchanged, by policy routing; it answers itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from paraglider.config.diagnostics import Path, Problem
from paraglider.forward.base import ForwardMethod
from paraglider.forward.dsr.checks import check_service
from paraglider.forward.dsr.rules import DECIDED, OPENINGS, dsr_rules
from paraglider.forward.rule_parts import MethodRules, RuleScope

if TYPE_CHECKING:
    from paraglider.config.model import Config, Service


class DsrMethod(ForwardMethod):
    """Packets of the clients routed by marks to the backends, which hold the VIP."""

    name = "dsr"
    options = frozenset({"return"})
    queued = True
    journalled = True
    owns_vip = False
    neighbours = True

    decided = DECIDED
    openings = OPENINGS

    def check(self, path: Path, service: Service, config: Config) -> Iterable[Problem]:
        """See ``Method``."""
        return check_service(path, service, config)

    def answers(self, service: Service) -> Literal["via", "direct"]:
        """See ``Method``: always direct."""
        return "direct"

    def describe(self, service: Service) -> str:
        """See ``Method``."""
        return (
            "a worker decides about a flow's first packets and now and then again, policy routing"
            " sends what the client sends on unchanged, answers go past this host; the backends see"
            " the client's address, must be this host's neighbours and hold the VIP without"
            " answering for it; needs NFQUEUE and policy routing, nft for speed, no conntrack."
        )

    def rules(self, scope: RuleScope) -> MethodRules:
        """See ``ForwardMethod``."""
        steering = scope.steering(lambda method: method is self)
        return dsr_rules(scope.of(self), scope.family, steering)

"""``ForwardMethod``: all that one way of forwarding is, in one folder of ``forward``.

Lives here: the base class of the methods that ``forward.registry`` lists.
Rules: a method's folder is imported by the registry, and by no other method's folder; whoever
wants to know something of a service's method asks ``service.method`` (what the configuration
knows, ``config.method``) or ``registry.of(service)`` (all of it), and compares no name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.method import Method
from paraglider.forward.rule_parts import MethodRules, OpeningsPart, RuleScope

if TYPE_CHECKING:
    from paraglider.config.model import Config, Service


class ForwardMethod(Method):
    """A forwarding method; a folder of ``forward`` has a subclass in its ``method.py``."""

    #: the iptables match of packets that were decided about; none where no packet is queued
    decided: ClassVar[str] = ""

    #: how new flows are limited ahead of the queue; None where none is queued
    openings: ClassVar[OpeningsPart | None] = None

    def check(self, path: Path, service: Service, config: Config) -> Iterable[Problem]:
        """See ``config.method.Method``; a method without contradictions of its own has none."""
        return ()

    def rules(self, scope: RuleScope) -> MethodRules:
        """The iptables rules for the services of ``scope`` with this method; there is one."""
        return MethodRules()

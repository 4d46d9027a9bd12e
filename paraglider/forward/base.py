"""``ForwardMethod``: all that one way of forwarding is, in one folder of ``forward``.

Lives here: the base class of the methods that ``forward.registry`` lists.
Rules: a method's folder is imported by the registry, and by no other method's folder; whoever
wants to know something of a service's method asks ``service.method`` (what the configuration
knows, ``config.method``) or ``registry.of(service)`` (all of it), and compares no name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.method import Method
from paraglider.config.types import IPInterface
from paraglider.forward.datapath import HEAD, Built, DatapathContext
from paraglider.forward.host_needs import HostNeeds, NftTable
from paraglider.forward.rule_parts import MethodRules, OpeningsPart, RuleScope
from paraglider.netfilter.rules.backend import Need
from paraglider.netfilter.rules.foreign import Passing
from paraglider.netfilter.rules.nft import KernelTable

if TYPE_CHECKING:
    from paraglider.config.model import Config, Service


class ForwardMethod(Method):
    """A forwarding method; a folder of ``forward`` has a subclass in its ``method.py``."""

    #: the iptables match of packets that were decided about; none where no packet is queued
    decided: ClassVar[str] = ""

    #: packets as other firewalls' forward chains see them; none where none is forwarded
    passing: ClassVar[tuple[Passing, ...]] = ()

    #: the names of the nft tables of its own, where the host has them
    table_names: ClassVar[tuple[str, ...]] = ()

    #: how new flows are limited ahead of the queue; None where none is queued
    openings: ClassVar[OpeningsPart | None] = None

    #: bytes of a packet that the datapath needs, None for all of them
    head: ClassVar[int | None] = HEAD

    def datapath(self, place: DatapathContext) -> Built:
        """The packet path of one worker, for a method that has packets queued to it.

        Raises ``TypeError`` for a method that has none (``queued``).
        """
        raise TypeError(f"{self.name}: no packet passes the queue of a worker")

    def check(self, path: Path, service: Service, config: Config) -> Iterable[Problem]:
        """See ``config.method.Method``; a method without contradictions of its own has none."""
        return ()

    def rules(self, scope: RuleScope) -> MethodRules:
        """The iptables rules for the services of ``scope`` with this method; there is one."""
        return MethodRules()

    def nft_tables(self, config: Config, family: int) -> Iterable[NftTable]:
        """The nft tables for the services of ``family`` (4 or 6), which a host may do without."""
        return ()

    def kernel_table(
        self, config: Config, family: int, hairpin: tuple[str, ...], seed: int
    ) -> KernelTable | None:
        """The table ``paraglider`` of ``family``, by which the kernel translates connections; None
        where there is no such service. ``hairpin`` and ``seed`` as ``forward.offload.table`` has
        them; only a method that is ``conntracked`` has one.
        """
        return None

    def host_needs(self, config: Config, family: int) -> HostNeeds:
        """What the services of ``family`` need of the host beside rules, VIPs and neighbours."""
        return HostNeeds()

    def check_host(
        self,
        config: Config,
        family: int,
        addresses: Mapping[str, Sequence[IPInterface]],
        leaving: Collection[tuple[str, IPInterface]],
    ) -> None:
        """Raise ``OperatorError`` where the services of ``family`` cannot work on this host, which
        has ``addresses`` by interface, of which some are ``leaving``: an earlier set-up added them.
        """

    @abstractmethod
    def backend_need(self, service: Service) -> tuple[Need, str]:
        """What ``service`` needs of its backends' hosts, and why, in a sentence."""

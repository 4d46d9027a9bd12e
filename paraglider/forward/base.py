"""``ForwardMethod``: the interface of a forward method, which has a folder of ``forward``.

Lives here: the base class of the methods that ``forward.registry`` lists.
Rules: a method's folder is imported only by the registry. Other code never compares method names:
it uses the attributes of ``service.method`` (the configuration's part, ``config.service``) or of
``registry.of(service)`` (all of it).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.service import Method
from paraglider.config.types import IPInterface
from paraglider.forward.datapath import HEAD, Built, DatapathContext
from paraglider.forward.host_needs import HostNeeds, NftTable
from paraglider.forward.rule_parts import MethodRules, OpeningsPart, RuleScope
from paraglider.netfilter.rules.backend import Need
from paraglider.netfilter.rules.foreign import Passing
from paraglider.netfilter.rules.nft import KernelTable

if TYPE_CHECKING:
    from paraglider.config.model import Config, Network, Service


class ForwardMethod(Method):
    """A forwarding method; a folder of ``forward`` has a subclass in its ``method.py``."""

    #: the iptables match of packets with a decision; None if no packet is queued
    decided: ClassVar[str] = ""

    #: packets as other firewalls' forward chains see them; None if none is forwarded
    passing: ClassVar[tuple[Passing, ...]] = ()

    #: the names of the method's own optional nft tables
    table_names: ClassVar[tuple[str, ...]] = ()

    #: how new flows are limited before the queue; None if none is queued
    openings: ClassVar[OpeningsPart | None] = None

    #: bytes of a packet that the datapath needs, None for all
    head: ClassVar[int | None] = HEAD

    #: the one of ``table_names`` by which the kernel rewrites packets of which only
    #: ``packet.COPY`` bytes were read: with it, that much is enough
    long_table: ClassVar[str] = ""

    #: a packet may be several that the kernel has merged (GSO), longer than any link takes
    merged: ClassVar[bool] = True

    #: a worker sends packets of its own
    sends: ClassVar[bool] = False

    def datapath(self, place: DatapathContext) -> Built:
        """The packet path of one worker, for a method with a queue.

        Raises ``TypeError`` for a method without one (``queued``).
        """
        raise TypeError(f"{self.name}: no packet passes the queue of a worker")

    def check(self, path: Path, service: Service, network: Network) -> Iterable[Problem]:
        """See ``config.service.Method``; the default checks nothing."""
        return ()

    def rules(self, scope: RuleScope) -> MethodRules:
        """The iptables rules for the services of ``scope`` with this method; there is one."""
        return MethodRules()

    def nft_tables(self, config: Config, family: int) -> Iterable[NftTable]:
        """The optional nft tables for the services of ``family`` (4 or 6)."""
        return ()

    def kernel_table(
        self, config: Config, family: int, hairpin: tuple[str, ...], seed: int
    ) -> KernelTable | None:
        """The table ``paraglider`` of ``family``, by which the kernel translates connections; None
        if no service needs it. ``hairpin`` and ``seed`` are as in ``forward.offload.table``; only a
        ``conntracked`` method has one.
        """
        return None

    def host_needs(self, config: Config, family: int) -> HostNeeds:
        """The host settings that the services of ``family`` need beside rules, VIPs and
        neighbours.
        """
        return HostNeeds()

    def check_host(
        self,
        config: Config,
        family: int,
        addresses: Mapping[str, Sequence[IPInterface]],
        leaving: Collection[tuple[str, IPInterface]],
    ) -> None:
        """Raise ``OperatorError`` if the services of ``family`` cannot work on this host, which has
        ``addresses`` by interface; those in ``leaving``, of an earlier set-up, will be removed.
        """

    @abstractmethod
    def backend_need(self, service: Service) -> tuple[Need, str]:
        """The requirements of ``service`` on its backends' hosts, and the reason in a sentence."""

"""The host settings of ``forward: dsr``: routes to the backends, and proxy ARP for the VIPs.

    route VIP          the host forwards to the VIP, which is no address of its own
    proxy VIP          the public interface answers ARP or neighbour discovery for it
    table, by mark     packets marked by a worker or a lease go to the backend's hardware address
    policy rule        leads the mark's packets to that table

Lives here: ``needs``, and ``check_host``, which checks the preconditions.
Rules: pure. The number of a backend's routing table is its mark (0x52000000 to 0x52ffffff), to
avoid collisions; all policy rules have one priority, before the main table. If clients and backends
are on one link, the route to the VIP leads to ``lo``: the kernel answers ARP for an address only if
its route leaves by another link than the request came from. A packet without a mark is rejected by
our filter rules before it gets there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from paraglider.config.model import Config
from paraglider.config.networks import Networks
from paraglider.config.types import IPInterface
from paraglider.errors import OperatorError
from paraglider.forward.dsr.marks import dsr_services, route_marks
from paraglider.forward.host_needs import (
    HostNeeds,
    PolicyRule,
    Route,
    RoutingEntry,
)
from paraglider.forward.vip_attraction import attracted, refuse_local_vips, vip_sysctls
from paraglider.netfilter.rules.marks import LEASE

PRIORITY = 82
"""Of our policy rules: after the local table (0), ahead of the main one (32766)."""

MARK_MASK = 0xFFFFFFFF & ~LEASE
"""The mask of marks in policy rules: the lease bit does not matter for routing."""


def needs(config: Config, family: int) -> HostNeeds:
    """The needs of the services of ``family``, in order; proxy ARP for the VIPs is last."""
    if not dsr_services(config, family):
        return HostNeeds()
    return HostNeeds(vip_sysctls(config, family), tuple(_routing(config, family)))


def _routing(config: Config, family: int) -> Iterator[RoutingEntry]:
    public, private = config.network.public, config.network.private
    if public is None or private is None:
        return  # checked: there is no dsr service then
    for backend, mark in route_marks(config, family).items():
        yield Route(private.interface, None, mark, backend)
        yield PolicyRule(family, mark, MARK_MASK, mark, PRIORITY)
    nowhere = "lo" if public.interface == private.interface else private.interface
    services = dsr_services(config, family)
    yield from attracted(services, public.interface, nowhere, config.announced)


def check_host(
    config: Config,
    family: int,
    addresses: Mapping[str, Sequence[IPInterface]],
    leaving: Collection[tuple[str, IPInterface]],
) -> None:
    """Raise ``OperatorError`` if a VIP is an address of this host, or a backend is not on the link.

    ``addresses`` are those of the host by interface; those in ``leaving``, by interface and
    address, are about to be removed.
    """
    private = config.network.private
    if private is None:
        return
    services = dsr_services(config, family)
    refuse_local_vips(services, addresses, leaving)
    links = [*addresses.get(private.interface, ()), *private.gateways]
    networks = [link.network for link in links if link.version == family]
    on_link = Networks(networks)
    for service in services:
        for backend in service.backends:
            if backend.address not in on_link:
                known = ", ".join(map(str, dict.fromkeys(networks))) or "none"
                raise OperatorError(
                    f"backend {backend.address} of `{service.name}` is in no network of"
                    f" {private.interface} (it has: {known}); `forward: dsr` reaches neighbours"
                    " alone",
                    f"give {private.interface} an address in its network (`gateway`), or use"
                    " `forward: nat`",
                )

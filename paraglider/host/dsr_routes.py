"""The ways to the backends of ``forward: dsr``: what draws a VIP's packets here, and on from here.

    route VIP          the host forwards to the VIP, which is no address of its own
    proxy VIP          the public interface answers ARP or neighbour discovery for it
    table, by mark     what a worker or a lease has marked goes to its backend's hardware address
    policy rule        tells the mark's packets to that table

Lives here: ``ways``, the changes that make them, and ``refuse``, what must be so before.
Rules: a backend's table has the number of its mark (0x52000000 to 0x52ffffff), which no one else
uses by accident; all rules have one priority, ahead of the main table. Where clients and backends
are on one link, the route to the VIP leads nowhere (``lo``): the kernel answers for an address
only where its route leads away from the link that asks. What has no mark is refused by our rules
before it gets there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from paraglider.config.model import Config, Service
from paraglider.config.networks import Networks
from paraglider.errors import OperatorError
from paraglider.forward.dsr.marks import way_marks
from paraglider.host.changes.base import Change, Host
from paraglider.host.changes.links import AddressChange
from paraglider.host.changes.routes import PolicyRuleChange, ProxyChange, RouteChange, Way
from paraglider.netfilter.rules.marks import LEASE

PRIORITY = 82
"""Of our policy rules: after the local table (0), ahead of the main one (32766)."""

MARK_MASK = 0xFFFFFFFF & ~LEASE
"""Under which a rule looks at a mark: the lease is no matter of routing."""


def ways(config: Config, family: int) -> Iterator[Way]:
    """The changes of ``family``, in their order: the VIPs are drawn here when all else is done."""
    public, private = config.network.public, config.network.private
    if public is None or private is None:
        return  # validated: there is no dsr service then
    for backend, mark in way_marks(config, family).items():
        yield RouteChange(family, private.interface, None, mark, str(backend))
        yield PolicyRuleChange(family, mark, MARK_MASK, mark, PRIORITY)
    nowhere = "lo" if public.interface == private.interface else private.interface
    vips = dict.fromkeys(str(s.vip.ip) for s in config.services if _is_ours(s, family))
    for vip in vips:
        yield RouteChange(family, nowhere, vip)
    for vip in vips:
        yield ProxyChange(family, public.interface, vip)


def refuse(config: Config, family: int, host: Host, earlier: Iterable[Change]) -> None:
    """Raise ``OperatorError`` where a VIP of dsr is an address of this host, or a backend no
    neighbour of it.

    An address that an earlier set-up added (``earlier``) is about to be taken back.
    """
    services = [s for s in config.services if _is_ours(s, family)]
    private = config.network.private
    if not services or private is None:
        return
    added = {change.identity for change in earlier if isinstance(change, AddressChange)}
    local = {
        address.ip: interface
        for interface in sorted(host.netlink.interfaces())
        for address in host.netlink.addresses(interface)
        if AddressChange(family, interface, str(address)).identity not in added
    }
    links = [*host.netlink.addresses(private.interface), *private.gateway]
    networks = [link.network for link in links if link.version == family]
    on_link = Networks(networks)
    for service in services:
        if (interface := local.get(service.vip.ip)) is not None:
            raise OperatorError(
                f"the VIP {service.vip.ip} of `{service.name}` is an address of this host"
                f" ({interface}); under `forward: dsr` the backends alone have it",
                f"ip address del {service.vip.ip} dev {interface}, or use another forward",
            )
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


def _is_ours(service: Service, family: int) -> bool:
    return service.family == family and service.forward == "dsr"

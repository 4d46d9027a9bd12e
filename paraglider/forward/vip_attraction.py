"""Attracts packets for VIPs that are no addresses of this host, which only the backends have.

    route VIP          the host forwards to the VIP
    proxy VIP          the public interface answers ARP or neighbour discovery for it, unless
                       routers are told of the VIP (`announce`)

Lives here: ``vip_sysctls``, ``attracted``, and ``refuse_local_vips``, which checks the
precondition.
Rules: pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from paraglider.config.model import Config, Service
from paraglider.config.types import IPAddress, IPInterface
from paraglider.errors import OperatorError
from paraglider.forward.host_needs import ProxyEntry, Route, RoutingEntry, SysctlNeed

_NET = {4: "net/ipv4", 6: "net/ipv6"}


def vip_sysctls(config: Config, family: int) -> tuple[SysctlNeed, ...]:
    """Sysctls that make the public interface answer ARP for a VIP without delay."""
    public = config.network.public
    return () if public is None else tuple(_sysctls(public.interface, family))


def _sysctls(public: str, family: int) -> Iterator[SysctlNeed]:
    if family == 6:
        key, everywhere = (f"{_NET[6]}/conf/{name}/proxy_ndp" for name in (public, "all"))
        # `all` is enough (Linux, net/ipv6/ndisc.c: ndisc_recv_ns).
        yield SysctlNeed(key, "1", unless=everywhere)
    # Otherwise proxy answers are delayed by up to 0.8 s (Linux, neighbour.c: pneigh_enqueue).
    yield SysctlNeed(f"{_NET[family]}/neigh/{public}/proxy_delay", "0", optional=True)


def attracted(
    services: Sequence[Service],
    public: str,
    nowhere: str,
    announced: Collection[IPAddress] = (),
) -> Iterator[RoutingEntry]:
    """The routing entries that attract the VIPs of ``services`` to the interface ``public``.
    Packets without a decision are routed to the interface ``nowhere``. VIPs that are ``announced``
    to routers are not attracted: several balancers would answer for one address.
    """
    vips = dict.fromkeys(service.vip.ip for service in services)
    for vip in vips:
        yield Route(nowhere, vip)
    for vip in vips:
        if vip not in announced:
            yield ProxyEntry(public, vip)


def refuse_local_vips(
    services: Sequence[Service],
    addresses: Mapping[str, Sequence[IPInterface]],
    leaving: Collection[tuple[str, IPInterface]],
) -> None:
    """Raise ``OperatorError`` if the VIP of one of ``services`` is an address of this host.

    ``addresses`` are those of the host by interface; those in ``leaving``, by interface and
    address, are about to be removed.
    """
    local = {
        address.ip: name
        for name, found in sorted(addresses.items())
        for address in found
        if (name, address) not in leaving
    }
    for service in services:
        if (interface := local.get(service.vip.ip)) is not None:
            raise OperatorError(
                f"the VIP {service.vip.ip} of `{service.name}` is an address of this host"
                f" ({interface}); under `forward: {service.forward}` the backends alone have it",
                f"ip address del {service.vip.ip} dev {interface}, or use another forward",
            )

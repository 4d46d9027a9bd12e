"""The host settings of ``forward: tunnel``: the VIPs are attracted (``forward.vip_attraction``).

Lives here: ``needs``, and ``check_host``, which checks the preconditions.
Rules: pure. Nothing is needed towards the backends: encapsulated packets take the host's routes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from paraglider.config.model import Config, Service
from paraglider.config.service import Method
from paraglider.config.types import IPInterface
from paraglider.forward.host_needs import HostNeeds
from paraglider.forward.vip_attraction import attracted, refuse_local_vips, vip_sysctls


def tunnel_services(config: Config, family: int, method: Method) -> tuple[Service, ...]:
    """The services of ``family`` (4 or 6) with ``method``."""
    return tuple(s for s in config.services if s.family == family and s.method is method)


def needs(config: Config, family: int, method: Method) -> HostNeeds:
    """The needs of the services of ``family`` with ``method``."""
    services, public = tunnel_services(config, family, method), config.network.public
    if not services or public is None:
        return HostNeeds()
    # No packet takes these routes, since our filter rules drop it before. IPv4 answers ARP for an
    # address only if its route leaves by another link than that of the request. IPv6 treats a route
    # to lo as unreachable, and answers so before the filter (Linux, net/ipv6/route.c:
    # ip6_route_info_create).
    nowhere = "lo" if family == 4 else public.interface
    entries = attracted(services, public.interface, nowhere, config.announced)
    return HostNeeds(vip_sysctls(config, family), tuple(entries))


def check_host(
    config: Config,
    family: int,
    method: Method,
    addresses: Mapping[str, Sequence[IPInterface]],
    leaving: Collection[tuple[str, IPInterface]],
) -> None:
    """Raise ``OperatorError`` if a VIP is an address of this host; see ``refuse_local_vips``."""
    refuse_local_vips(tunnel_services(config, family, method), addresses, leaving)

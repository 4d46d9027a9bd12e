"""From the configuration to what the checker looks at.

Lives here: ``Target`` and ``Scope``, ``target`` and ``scope``, which make them.
Rules: pure; the names of backends are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from paraglider.config.health import Check, Failover
from paraglider.config.model import Backend, Config, Service
from paraglider.config.types import IPAddress
from paraglider.health.results import Name

Plain = dict[str, Any]
#: service and backend, by their names
Key = tuple[str, str]


class Target(NamedTuple):
    """A backend of a service, and how it is looked at.

    ``port`` is the one to look at, 0 where there is none. ``check`` is None where failover alone
    looks. ``up`` is what the hub knows of it, for a checker that begins anew. ``found``: failover
    found it, the file does not list it.
    """

    service: Name
    backend: Name
    address: IPAddress
    port: Annotated[int, Field(ge=0, le=65535)]
    check: Check | None
    up: bool = True
    found: bool = False

    @property
    def key(self) -> Key:
        """What names it."""
        return (self.service, self.backend)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where failover looks: its settings, and what of the network it has to know.

    ``broadcasts`` are the IPv4 addresses to ping, ``interface`` is where the all-nodes group of
    IPv6 is pinged (empty: nowhere), ``sources`` our addresses there to ask it from. ``never`` are
    addresses that are no backends: VIPs, gateways, exempt ones; the host's own are found out
    besides.
    """

    failover: Failover
    broadcasts: tuple[IPAddress, ...] = ()
    interface: str = ""
    sources: tuple[IPAddress, ...] = ()
    never: frozenset[IPAddress] = frozenset()


def target(
    service: Service, backend: Backend, name: str, *, up: bool = True, found: bool = False
) -> Target:
    """How ``backend`` of ``service``, called ``name``, is looked at."""
    check = service.check
    asked = check.port if check is not None else None
    port = asked or backend.port or service.single_port or 0
    return Target(service.name, name, backend.address, port, check, up, found)


def scope(config: Config) -> Scope:
    """Where failover looks: the networks of the gateways, by their broadcast addresses, and the
    private interface; never at our own addresses, of which the file names these.
    """
    private = config.network.private
    gateways = private.gateway if private is not None else ()
    broadcasts: list[IPAddress] = [
        gateway.network.broadcast_address
        for gateway in gateways
        if gateway.version == 4 and gateway.network.prefixlen < 31
    ]
    if config.failover.broadcast is not None:
        broadcasts = [config.failover.broadcast]
    never = {gateway.ip for gateway in gateways}
    for service in config.services:
        never.add(service.vip.ip)
        if service.snat is not None:
            never.add(service.snat)
    never.update(exempt.address for exempt in config.network.exempt)
    return Scope(
        config.failover,
        tuple(dict.fromkeys(broadcasts)),
        private.interface if private is not None else "",
        tuple(gateway.ip for gateway in gateways if gateway.version == 6),
        frozenset(never),
    )

"""The checker's targets, from the configuration.

Lives here: ``Target`` and ``Scope``; ``target`` and ``scope``, which make them.
Rules: pure; the caller names the backends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from paraglider.config.health import AgentCheck, Check, Failover
from paraglider.config.model import BackendConfig, Config, Service
from paraglider.config.types import IPAddress
from paraglider.health.results import Name

Plain = dict[str, Any]
#: service and backend, by their names
Key = tuple[str, str]


class Target(NamedTuple):
    """A backend of a service, and its check.

    ``port`` is the port to check, 0 if there is none. ``check`` is None if only failover checks it.
    ``up`` is its state in the store, for a checker that starts. ``found`` is true if failover found
    it and the file does not list it. ``agent`` is how its agent is asked, None if it has none.
    """

    service: Name
    backend: Name
    address: IPAddress
    port: Annotated[int, Field(ge=0, le=65535)]
    check: Check | None
    up: bool = True
    found: bool = False
    agent: AgentCheck | None = None

    @property
    def key(self) -> Key:
        """Service and backend name."""
        return (self.service, self.backend)


@dataclass(frozen=True, slots=True)
class Scope:
    """Failover's settings, and the networks that it sweeps.

    ``broadcasts`` are the IPv4 addresses to ping, ``interface`` is where the all-nodes group of
    IPv6 is pinged (empty: nowhere), ``sources`` are the balancer's addresses there. ``never`` are
    addresses that cannot be backends: VIPs, gateways, exempt ones; the host's own addresses are
    excluded too.
    """

    failover: Failover
    broadcasts: tuple[IPAddress, ...] = ()
    interface: str = ""
    sources: tuple[IPAddress, ...] = ()
    never: frozenset[IPAddress] = frozenset()


def target(
    service: Service, backend: BackendConfig, name: str, *, up: bool = True, found: bool = False
) -> Target:
    """The target of ``backend`` of ``service``, called ``name``."""
    check = service.check
    asked = check.port if check is not None else None
    port = asked or backend.port or service.single_port or 0
    return Target(service.name, name, backend.address, port, check, up, found, service.agent)


def scope(config: Config) -> Scope:
    """Failover's scope: the broadcast addresses of the gateways' networks, and the private
    interface, without the balancer's addresses in the file.
    """
    private = config.network.private
    gateways = private.gateways if private is not None else ()
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
        if service.snat_address is not None:
            never.add(service.snat_address)
    never.update(exempt.address for exempt in config.network.exempt)
    return Scope(
        config.failover,
        tuple(dict.fromkeys(broadcasts)),
        private.interface if private is not None else "",
        tuple(gateway.ip for gateway in gateways if gateway.version == 6),
        frozenset(never),
    )

"""From the configuration to what the checker looks at.

Lives here: ``target``, ``scope``.
Rules: pure; the names of backends are the caller's.
"""

from __future__ import annotations

from paraglider.config.model import Backend, Config, Service
from paraglider.config.types import IPAddress
from paraglider.health.messages import Scope, Target


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

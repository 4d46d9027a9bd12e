"""Backends that failover discovered (``discover``), and the services that they join.

A discovered host joins every service of its family, with weight 1 and the port of the service's
backends. It does not join a service whose backends have different ports, a `dsr` service (its
backends need a set-up of their own), or one where it would make the configuration invalid, for
example because another service has that port of the host.

Lives here: ``DiscoveredHosts``.
Rules: pure. The monitor, which reports hosts, has no privileges and is not trusted. The balancer's
own addresses, VIPs and the other addresses of ``health.targets.scope`` never join, nor do addresses
outside the gateways' networks, if there are gateways, nor more than ``health.sweep.MOST`` hosts.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config import check
from paraglider.config.model import BackendConfig, Config, Service
from paraglider.config.network import gateways_of
from paraglider.config.types import IPAddress
from paraglider.daemon.store.backends import Key
from paraglider.daemon.store.draining import without
from paraglider.health.sweep import MOST
from paraglider.health.targets import scope


class DiscoveredHosts:
    """The discovered hosts; ``keys`` are their backends, by service and name."""

    def __init__(self) -> None:
        self._hosts: dict[IPAddress, None] = {}
        self._ever: frozenset[Key] = frozenset()
        self.keys: frozenset[Key] = frozenset()

    def __contains__(self, address: object) -> bool:
        return address in self._hosts

    def __len__(self) -> int:
        return len(self._hosts)

    def __iter__(self) -> Iterator[IPAddress]:
        return iter(self._hosts)

    def join(self, address: IPAddress, config: Config) -> bool:
        """Add ``address``; False if it must not be a backend of ``config``, or is one already."""
        if address in self._hosts or len(self._hosts) >= MOST or not _may_join(address, config):
            return False
        self._hosts[address] = None
        return True

    def leave(self, address: IPAddress) -> bool:
        """Remove ``address``; False if it was not a discovered backend."""
        there = address in self._hosts
        self._hosts.pop(address, None)
        return there

    def into(self, config: Config) -> Config:
        """``config``, which is valid, plus the discovered hosts; unchanged without ``discover``."""
        if not config.failover.enabled or not config.failover.discover:
            self._hosts.clear()
        if not self._hosts:
            return config
        every = _with(config, list(self._hosts))
        if not check.check(every):
            return every
        for address in self._hosts:  # not valid together: add them one by one
            for service in config.services:
                one = _with(config, [address], service.name)
                if not check.check(one):
                    config = one
        return config

    def note_applied(self, listed: Config, wanted: Config) -> None:
        """Note that ``wanted`` (``listed`` plus discovered hosts) has been applied."""
        found = frozenset(
            (service.name, backend.name)
            for service in wanted.services
            for backend in service.backends
            if backend.address in self._hosts
        )
        here = _keys(listed)
        self.keys = found - here
        self._ever = (self._ever | self.keys) - here

    def listed(self, wanted: Config) -> Config:
        """The applied configuration ``wanted``, without the discovered hosts."""
        return without(wanted, self.keys) if self.keys else wanted

    def former(self, key: Key) -> bool:
        """Whether it was a discovered host that has been removed since."""
        return key in self._ever and key not in self.keys


def _keys(config: Config) -> frozenset[Key]:
    return frozenset((s.name, backend.name) for s in config.services for backend in s.backends)


def _may_join(address: IPAddress, config: Config) -> bool:
    if address in scope(config).never:
        return False
    networks = [gateway.network for gateway in gateways_of(config.network, address.version)]
    return not networks or any(address in network for network in networks)


def _with(config: Config, hosts: list[IPAddress], only: str | None = None) -> Config:
    services = tuple(
        _joined(service, hosts) if only in (None, service.name) else service
        for service in config.services
    )
    return config.model_copy(update={"services": services})


def _joined(service: Service, hosts: list[IPAddress]) -> Service:
    ports = {backend.port for backend in service.backends}
    if not service.method.owns_vip or len(ports) != 1:
        return service
    (port,) = ports
    listed = {backend.address for backend in service.backends}
    more = tuple(
        BackendConfig(address=address, port=port)
        for address in hosts
        if address.version == service.family and address not in listed
    )
    return service.with_backends((*service.backends, *more)) if more else service

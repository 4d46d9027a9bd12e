"""``forward: nat``: from the configuration to the packet path of one worker.

Rules: no I/O. The objects are a worker's own: workers share nothing.
"""

from __future__ import annotations

from paraglider.config.model import Backend as BackendConfig
from paraglider.config.model import Config
from paraglider.config.model import Service as ServiceConfig
from paraglider.core.affinity import Affinity
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, UDP, FlowTable, Timeouts
from paraglider.core.nat import Nat
from paraglider.core.pool import Backend, Pool
from paraglider.core.service import Service, ServiceMap
from paraglider.core.strategies import STRATEGIES, Context, Registry, create

_PROTOCOLS = {"tcp": (TCP,), "udp": (UDP,), "any": (TCP, UDP)}


def build(config: Config, worker: int, now: float, registry: Registry = STRATEGIES) -> Nat:
    """The packet path of worker number ``worker`` (0, 1, …) for the nat services of ``config``.

    ``registry`` has the strategies that the services name (``policies.load``).
    """
    services = [
        _service(s, config, worker, registry) for s in config.services if s.forward == "nat"
    ]
    limits = config.timeouts
    timeouts = Timeouts(
        syn=limits.syn,
        established=limits.established,
        closing=limits.closing,
        udp=limits.udp,
        icmp=limits.icmp,
    )
    return Nat(Balancer(ServiceMap(services)), FlowTable(timeouts, config.flows.max, now))


def backend_name(backend: BackendConfig) -> str:
    """How messages call a backend: ADDRESS, or ADDRESS:PORT where its port is mapped."""
    if backend.port is None:
        return str(backend.address)
    host = f"[{backend.address}]" if backend.address.version == 6 else str(backend.address)
    return f"{host}:{backend.port}"


def make_backends(service: ServiceConfig) -> tuple[Backend, ...]:
    """The backends of ``service`` as the core has them, in the order of the configuration."""
    return tuple(
        Backend(backend_name(b), b.address.packed, b.port or 0, b.weight) for b in service.backends
    )


def _service(service: ServiceConfig, config: Config, worker: int, registry: Registry) -> Service:
    affinity = None
    if service.affinity == "client":
        affinity = Affinity(config.timeouts.affinity, config.flows.max)
    return Service(
        service.name,
        service.vip.ip.packed,
        _PROTOCOLS[service.protocol],
        tuple((span.first, span.last) for span in service.ports),
        Pool(make_backends(service)),
        create(service.strategy, Context(service.name, worker, service.seed), registry),
        affinity=affinity,
        direct=service.return_ == "direct",
        echo=service.protocol == "any",
    )

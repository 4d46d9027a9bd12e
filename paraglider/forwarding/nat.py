"""``forward: nat``: from the configuration to the packet path of one worker.

Rules: no I/O. The objects are a worker's own: workers share nothing.
"""

from __future__ import annotations

from paraglider.config.model import Backend as BackendConfig
from paraglider.config.model import Config
from paraglider.config.model import Service as ServiceConfig
from paraglider.core import strategies
from paraglider.core.affinity import Affinity
from paraglider.core.balancer import Balancer
from paraglider.core.flow import TCP, UDP, FlowTable, Timeouts
from paraglider.core.nat import Nat
from paraglider.core.pool import Backend, Pool
from paraglider.core.service import Service, ServiceMap

_PROTOCOLS = {"tcp": (TCP,), "udp": (UDP,), "any": (TCP, UDP)}


def build(config: Config, worker: int, now: float) -> Nat:
    """The packet path of worker number ``worker`` (0, 1, …) for the nat services of ``config``."""
    services = [_service(s, config, worker) for s in config.services if s.forward == "nat"]
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


def _service(service: ServiceConfig, config: Config, worker: int) -> Service:
    affinity = None
    if service.affinity == "client":
        affinity = Affinity(config.timeouts.affinity, config.flows.max)
    return Service(
        service.name,
        service.vip.ip.packed,
        _PROTOCOLS[service.protocol],
        tuple((span.first, span.last) for span in service.ports),
        Pool(
            [
                Backend(backend_name(b), b.address.packed, b.port or 0, b.weight)
                for b in service.backends
            ]
        ),
        strategies.create(service.strategy, worker),
        affinity=affinity,
        direct=service.return_ == "direct",
        echo=service.protocol == "any",
    )

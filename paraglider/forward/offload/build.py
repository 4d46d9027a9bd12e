"""``forward: offload``: from the configuration to the packet path of one worker.

Rules: no I/O. The marks that a worker answers are those of the kernel's maps (``rules.marks``).
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.config.model import Config
from paraglider.core.balancer import Balancer
from paraglider.core.pool import Backend
from paraglider.core.service import Service, ServiceMap
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.forward.offload.datapath import FirstPacketDatapath
from paraglider.forward.services import make_services
from paraglider.netfilter.rules.marks import backend_marks


def build(config: Config, worker: int, registry: Registry = STRATEGIES) -> FirstPacketDatapath:
    """The packet path of worker number ``worker`` (0, 1, …) for the offload services alone.

    ``registry`` has the strategies that the services name (``policies.load``).
    """
    services = make_services(config, ("offload",), worker, registry)
    return make_marker(config, Balancer(ServiceMap(services)))


def make_marker(config: Config, balancer: Balancer) -> FirstPacketDatapath:
    """What decides for the offload services among those of ``balancer``."""
    return FirstPacketDatapath(balancer, marks_of(config, balancer.services.services))


def marks_of(config: Config, services: Iterable[Service]) -> dict[Backend, int]:
    """The mark of every backend of the offload services among ``services``."""
    found = backend_marks(config)
    marks: dict[Backend, int] = {}
    for service in services:
        if service.offloaded:
            marks.update(zip(service.pool.backends, found[service.name], strict=True))
    return marks

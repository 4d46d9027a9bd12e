"""``forward: offload``: from the configuration to the packet path of one worker.

Rules: no I/O. The marks that a worker answers are those of the kernel's maps (``rules.marks``).
"""

from __future__ import annotations

from paraglider.config.model import Config
from paraglider.core.balancer import Balancer
from paraglider.core.marker import Marker
from paraglider.core.pool import Backend
from paraglider.core.service import ServiceMap
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.forwarding.services import make_services
from paraglider.rules.marks import backend_marks


def build(config: Config, worker: int, registry: Registry = STRATEGIES) -> Marker:
    """The packet path of worker number ``worker`` (0, 1, …) for the offload services alone.

    ``registry`` has the strategies that the services name (``policies.load``).
    """
    services = make_services(config, ("offload",), worker, registry)
    return make_marker(config, Balancer(ServiceMap(services)))


def make_marker(config: Config, balancer: Balancer) -> Marker:
    """What decides for the offload services among those of ``balancer``."""
    found = backend_marks(config)
    marks: dict[Backend, int] = {}
    for service in balancer.services.services:
        if service.offloaded:
            marks.update(zip(service.pool.backends, found[service.name], strict=True))
    return Marker(balancer, marks)

"""``forward: dsr``: from the configuration to the packet path of one worker.

Rules: no I/O. The marks that a worker answers are those of the kernel's policy rules
(``rules.marks``). A flow is forgotten a lease later than the configuration says: so long may its
packets have passed without the worker.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from paraglider.config.model import Config
from paraglider.core.balancer import Balancer
from paraglider.core.flow import Timeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend
from paraglider.core.service import Service, ServiceMap
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.forward.dsr.datapath import DsrDatapath
from paraglider.forward.dsr.leases import lease_seconds
from paraglider.forward.dsr.marks import way_marks
from paraglider.forward.services import make_services
from paraglider.netfilter.rules.marks import LEASE


def build(config: Config, worker: int, now: float, registry: Registry = STRATEGIES) -> DsrDatapath:
    """The packet path of worker number ``worker`` (0, 1, …) for the dsr services of ``config``.

    ``registry`` has the strategies that the services name (``policies.load``).
    """
    services = make_services(config, ("dsr",), worker, registry)
    flows = FlowTable(timeouts(config), config.flows.max, now)
    return DsrDatapath(Balancer(ServiceMap(services)), flows, marks_of(config, services), LEASE)


def marks_of(config: Config, services: Iterable[Service]) -> dict[Backend, int]:
    """The mark of every backend of the dsr ``services``."""
    ways = {**way_marks(config, 4), **way_marks(config, 6)}
    return {
        backend: ways[ipaddress.ip_address(backend.address)]
        for service in services
        for backend in service.pool.backends
    }


def timeouts(config: Config) -> Timeouts:
    """The timeouts of the flow table."""
    limits, lease = config.timeouts, lease_seconds(config.timeouts)
    return Timeouts(
        syn=limits.syn,
        established=limits.established + lease,
        closed_rst=limits.after_rst,
        closed_fin=limits.after_fin,
        udp=limits.udp + lease,
        icmp=limits.icmp,
    )

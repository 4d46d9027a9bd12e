"""``forward: nat``: from the configuration to the packet path of one worker.

Rules: no I/O. The objects are a worker's own: workers share nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from paraglider.config.model import Config
from paraglider.core.balancer import Balancer
from paraglider.core.flow import Timeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.service import Service, ServiceMap
from paraglider.core.strategies import STRATEGIES, Registry
from paraglider.core.verdict import MARK
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.nat.long import long_marks
from paraglider.forward.offload import build as offload
from paraglider.forward.services import make_services


def build(config: Config, worker: int, now: float, registry: Registry = STRATEGIES) -> NatDatapath:
    """The packet path of worker number ``worker`` (0, 1, …) for the nat services of ``config``.

    Where there are offload services too, it decides for their first packets as well, since a
    worker reads one queue. ``registry`` has the strategies that the services name
    (``policies.load``).
    """
    services = make_services(config, ("nat", "offload"), worker, registry)
    set_long_verdicts(config, services)
    balancer = Balancer(ServiceMap(services))
    flows = FlowTable(timeouts(config), config.flows.max, now)
    return NatDatapath(balancer, flows, offload.make_marker(config, balancer))


def set_long_verdicts(config: Config, services: Iterable[Service]) -> None:
    """Give the translations of the nat services among ``services`` the verdict for long packets."""
    marks = long_marks(config)
    for service in services:
        if not service.offloaded:
            for backend, mark in zip(service.pool.backends, marks[service.name], strict=True):
                service.translations[backend].long_verdict = MARK | mark << 8


def timeouts(config: Config) -> Timeouts:
    """The timeouts of the flow table."""
    limits = config.timeouts
    return Timeouts(
        syn=limits.syn,
        established=limits.established,
        closed_rst=limits.after_rst,
        closed_fin=limits.after_fin,
        udp=limits.udp,
        icmp=limits.icmp,
    )

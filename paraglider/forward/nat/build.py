"""``forward: nat``: from the configuration to the packet path of one worker.

Rules: no I/O. The objects are a worker's own: workers share nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paraglider.config.model import Config
from paraglider.core.flow import FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.service import VirtualService
from paraglider.core.verdict import MARK
from paraglider.forward.datapath import Built, DatapathContext
from paraglider.forward.nat.carrier import WorkerCarrier
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.nat.long import long_marks


def build(place: DatapathContext) -> Built:
    """The packet path of the nat services; ``place.others`` decides about first packets of other
    services with the same VIPs.
    """
    carrier = WorkerCarrier()
    flows = FlowTable(timeouts(place.config), place.config.flows.max, place.now)
    datapath = NatDatapath(place.balancer, flows, place.others, carrier)

    def configure(config: Config, services: Sequence[VirtualService]) -> None:
        set_long_verdicts(config, services)
        carrier.set_services(services)
        flows.limit(timeouts(config))

    return Built(datapath, configure)


def set_long_verdicts(config: Config, services: Iterable[VirtualService]) -> None:
    """Give the translations of ``services`` the verdict for long packets."""
    marks = long_marks(config)
    for service in services:
        for backend, mark in zip(service.pool.backends, marks[service.name], strict=True):
            service.translations[backend].long_verdict = MARK | mark << 8


def timeouts(config: Config) -> FlowTimeouts:
    """The timeouts of the flow table."""
    limits = config.timeouts
    return FlowTimeouts(
        syn=limits.syn,
        established=limits.established,
        closed_rst=limits.after_rst,
        closed_fin=limits.after_fin,
        udp=limits.udp,
        icmp=limits.icmp,
    )

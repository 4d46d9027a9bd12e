"""``forward: tunnel``: from the configuration to the packet path of one worker.

Rules: no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from paraglider.config.model import Config
from paraglider.core.flow_table import FlowTable
from paraglider.core.service import VirtualService
from paraglider.forward.bpf.carrier import BpfCarrier
from paraglider.forward.bpf.context import split
from paraglider.forward.datapath import Built, DatapathContext
from paraglider.forward.services import flow_timeouts
from paraglider.forward.tunnel.carrier import TunnelCarrier
from paraglider.forward.tunnel.datapath import TunnelDatapath


def build(place: DatapathContext) -> Built:
    """The packet path of the tunnel services."""
    carrier = TunnelCarrier()
    flows = FlowTable(flow_timeouts(place.config), place.config.flows.max, place.now)
    bpf = None if place.bpf is None else BpfCarrier(place.bpf, flows, carrier)
    datapath = TunnelDatapath(place.balancer, flows, carrier, place.output, bpf)
    if bpf is not None:
        bpf.report_to(datapath)

    def configure(config: Config, services: Sequence[VirtualService]) -> None:
        ports = {service.name: service.encapsulation.udp_port for service in config.services}
        carrier.set_ports(
            {b: ports[service.name] for service in services for b in service.pool.backends}
        )
        for service in services:
            for translation in service.translations.values():
                translation.outer_port = ports[service.name]
        if bpf is not None:
            bpf.configure(*split(config, services, place.bpf))
        flows.limit(flow_timeouts(config))
        datapath.adopter.limit = config.queue.openings_rate

    return Built(datapath, configure)

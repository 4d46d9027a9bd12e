"""``forward: dsr``: from the configuration to the packet path of one worker.

Rules: no I/O. The marks of a worker's verdicts are those of the kernel's policy rules
(``rules.marks``). A flow's timeout is a lease longer than configured, since packets may have passed
without the worker for so long.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from paraglider.config.model import Config
from paraglider.core.flow import FlowTimeouts
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.forward.bpf.carrier import BpfCarrier
from paraglider.forward.bpf.context import split
from paraglider.forward.datapath import Built, DatapathContext
from paraglider.forward.dsr.carrier import LeaseCarrier
from paraglider.forward.dsr.leases import lease_seconds
from paraglider.forward.dsr.marks import route_marks
from paraglider.forward.one_sided import OneSidedDatapath
from paraglider.forward.services import flow_timeouts
from paraglider.netfilter.rules.marks import LEASE


def build(place: DatapathContext) -> Built:
    """The packet path of the dsr services."""
    leases = LeaseCarrier({}, LEASE)
    flows = FlowTable(timeouts(place.config), place.config.flows.max, place.now)
    bpf = None if place.bpf is None else BpfCarrier(place.bpf, flows, leases)
    datapath = OneSidedDatapath(place.balancer, flows, leases, bpf)
    if bpf is not None:
        bpf.report_to(datapath)

    def configure(config: Config, services: Sequence[VirtualService]) -> None:
        leases.set_marks(marks_of(config, services))
        if bpf is not None:
            bpf.configure(*split(config, services, place.bpf))
        flows.limit(timeouts(config))
        datapath.adopter.limit = config.queue.openings_rate

    return Built(datapath, configure)


def marks_of(config: Config, services: Iterable[VirtualService]) -> dict[Backend, int]:
    """The mark of every backend of ``services``."""
    ways = {**route_marks(config, 4), **route_marks(config, 6)}
    return {
        backend: ways[ipaddress.ip_address(backend.address)]
        for service in services
        for backend in service.pool.backends
    }


def timeouts(config: Config) -> FlowTimeouts:
    """The timeouts of the flow table."""
    return flow_timeouts(config, lease_seconds(config.timeouts))

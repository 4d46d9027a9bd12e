"""``forward: nat``: from the configuration to the packet path of one worker.

Rules: no I/O. The objects are a worker's own: workers share nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paraglider.config.model import Config
from paraglider.core.flow_table import FlowTable
from paraglider.core.service import VirtualService
from paraglider.core.verdict import MARK
from paraglider.forward.bpf.carrier import BpfCarrier
from paraglider.forward.bpf.context import split
from paraglider.forward.datapath import Built, DatapathContext
from paraglider.forward.nat.datapath import NatDatapath
from paraglider.forward.nat.long import long_marks
from paraglider.forward.services import flow_timeouts
from paraglider.forward.worker_carrier import WorkerCarrier


def build(place: DatapathContext) -> Built:
    """The packet path of the nat services; ``place.others`` decides about first packets of other
    services with the same VIPs.
    """
    flows = FlowTable(flow_timeouts(place.config), place.config.flows.max, place.now)
    worker = WorkerCarrier()
    bpf = None if place.bpf is None else BpfCarrier(place.bpf, flows, worker)
    datapath = NatDatapath(place.balancer, flows, place.others, bpf or worker)
    if bpf is not None:
        bpf.report_to(datapath)

    def configure(config: Config, services: Sequence[VirtualService]) -> None:
        set_long_verdicts(config, services)
        worker.set_services(services)
        if bpf is not None:
            bpf.configure(*split(config, services, place.bpf))
        flows.limit(flow_timeouts(config))
        datapath.adopter.limit = config.queue.openings_rate

    return Built(datapath, configure)


def set_long_verdicts(config: Config, services: Iterable[VirtualService]) -> None:
    """Give the translations of ``services`` the verdict for long packets."""
    marks = long_marks(config)
    for service in services:
        for backend, mark in zip(service.pool.backends, marks[service.name], strict=True):
            service.translations[backend].long_verdict = MARK | mark << 8

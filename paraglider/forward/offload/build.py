"""``forward: offload``: from the configuration to the packet path of one worker.

Rules: no I/O. The marks that a worker answers are those of the kernel's maps (``rules.marks``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paraglider.config.model import Config
from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.forward.datapath import Built, DatapathContext
from paraglider.forward.offload.carrier import ConntrackCarrier
from paraglider.forward.offload.datapath import FirstPacketDatapath
from paraglider.netfilter.rules.marks import backend_marks


def build(place: DatapathContext) -> Built:
    """The packet path of the offload services."""
    carrier = ConntrackCarrier({}, place.live)
    datapath = FirstPacketDatapath(place.balancer, carrier)

    def configure(config: Config, services: Sequence[VirtualService]) -> None:
        carrier.set_marks(marks_of(config, services))
        datapath.adopter.limit = config.queue.openings_rate

    return Built(datapath, configure, datapath.decide)


def marks_of(config: Config, services: Iterable[VirtualService]) -> dict[Backend, int]:
    """The mark of every backend of ``services``."""
    found = backend_marks(config)
    marks: dict[Backend, int] = {}
    for service in services:
        marks.update(zip(service.pool.backends, found[service.name], strict=True))
    return marks

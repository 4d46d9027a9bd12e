"""What the BPF carriers of one worker share: maps, the worker's ring, and each other.

Each method with a flow table has its own carrier. The ring has the events of all their flows, and a
sweep over the maps finds the entries of all, so each event and entry is offered to every carrier.

Lives here: ``BpfResources``, ``BpfContext``, and ``open_context``, which maps ring and tables;
``split``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from paraglider.bpf.decisions import open_decisions
from paraglider.bpf.layout import REASONS, RING_BYTES
from paraglider.bpf.maps import CarrierMaps
from paraglider.bpf.ring import open_ring
from paraglider.config.deciding import kernel_decides
from paraglider.config.model import Config
from paraglider.config.service import Method
from paraglider.core.service import VirtualService
from paraglider.forward.bpf.ahead import EntriesAhead
from paraglider.forward.bpf.deciding import KernelDecisions
from paraglider.forward.bpf.events import EventRing, FlowEvents
from paraglider.forward.bpf.loads import SharedLoads
from paraglider.forward.bpf.reclaim import SlotReclaimer
from paraglider.forward.bpf.removed import RemovedKeys

if TYPE_CHECKING:
    from paraglider.forward.bpf.carrier import BpfCarrier

_EVENTS_LOST: Final = REASONS.index("events_lost")


@dataclass(slots=True)
class BpfContext:
    """The program's ``maps``, and the ``ring`` with the events for worker number ``worker`` of
    ``workers``. ``carriers`` are those of this worker; the first reads the ``events``.
    ``decisions`` has the tables by which the program decides, in the worker that writes them;
    ``loads`` has the numbers of flows of all workers; BPF does not carry the methods ``lacks``.
    ``counted``: closed connections whose entries are there were counted by the predecessor, or will
    be by their events.
    """

    maps: CarrierMaps
    ring: EventRing
    worker: int = 0
    workers: int = 1
    carriers: list[BpfCarrier] = field(default_factory=list)
    reclaimer: SlotReclaimer = field(init=False)
    removed: RemovedKeys = field(init=False)
    events: FlowEvents = field(init=False)
    ahead: EntriesAhead = field(init=False)
    decisions: KernelDecisions | None = None
    loads: SharedLoads = field(default_factory=lambda: SharedLoads(1))
    lacks: frozenset[Method] = frozenset()
    counted: bool = False
    _decided: dict[int, tuple[VirtualService, ...]] = field(default_factory=dict)
    _counted: list[VirtualService] = field(default_factory=list)
    _reporting: bool = False

    def __post_init__(self) -> None:
        self.reclaimer = SlotReclaimer(self.maps, self._held)
        self.removed = RemovedKeys()
        self.ahead = EntriesAhead(self.maps)
        self.events = FlowEvents(self.ring, self.removed, self.ahead)

    @property
    def events_lost(self) -> int:
        """The number of events for which a ring had no room; raises ``OSError``."""
        return self.maps.reasons.total(_EVENTS_LOST)[0]

    def _held(self) -> set[int]:
        """The slots that this worker holds."""
        return {index for carrier in self.carriers for index in carrier.slots.held}

    def configure(self, config: Config) -> None:
        """Set steering and limits of the decisions by ``config``; raises ``OSError``."""
        self._reporting = any(
            kernel_decides(service) and service.decide != "hash" for service in config.services
        )
        if self.decisions is not None:
            self.decisions.set_config(config, self.workers)

    def decide(self, carrier: BpfCarrier, services: tuple[VirtualService, ...]) -> None:
        """Have the program decide for ``services`` of ``carrier``; raises ``OSError``."""
        self._decided[self.carriers.index(carrier)] = services
        self.loads.set_busy(self.worker, busy=True)
        every = [one for each in self._decided.values() for one in each]
        self._counted = [service for service in every if service.strategy.counts_flows]
        if self.decisions is not None:
            self.decisions.configure(every)

    @property
    def unplaced(self) -> tuple[str, ...] | None:
        """``KernelDecisions.unplaced``; None if another worker writes the tables."""
        return None if self.decisions is None else self.decisions.unplaced

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done for the maps: no carrier has a task, no table waits to be
        written, and the program reports no flows that it decides.
        """
        waiting = self.decisions is not None and self.decisions.waiting
        return not self._reporting and not waiting and all(each.idle for each in self.carriers)

    def enable_decisions(self, on: bool) -> None:
        """Have the program decide (``on``) once all flows have entries, or not at all."""
        self.loads.set_busy(self.worker, busy=True)
        if self.decisions is not None:
            self.decisions.enable(on)

    def refresh_decisions(self) -> None:
        """Have all tables written again, since translations have other slots."""
        if self.decisions is not None:
            self.decisions.refresh()

    def write_decisions(self, carrier: BpfCarrier, now: float) -> None:
        """Write the changed tables, once for all carriers; raises ``OSError``."""
        if self.carriers[-1] is not carrier:
            return
        for service in self._counted:
            self.loads.write(self.worker, service.translations.values())
        self.loads.set_busy(self.worker, busy=not all(one.idle for one in self.carriers))
        if self.decisions is not None:
            self.decisions.sync(now, busy=self.loads.busy)


@dataclass(frozen=True, slots=True)
class BpfResources:
    """The resources of the BPF carrier that all workers share: the program's ``maps``, the number
    of ``workers``, the seed of the ``steering``, the numbers of flows (``loads``), and the forward
    methods that the program cannot carry on this kernel (``lacks``).
    """

    maps: CarrierMaps
    workers: int
    steering: int
    loads: SharedLoads
    lacks: frozenset[Method] = frozenset()


def open_context(resources: BpfResources, worker: int) -> BpfContext:
    """The context of worker number ``worker``; worker 0 writes the tables by which the program
    decides. Raises ``OSError`` if memory cannot be mapped.
    """
    maps, loads = resources.maps, resources.loads
    loads.reset(worker)
    ring = open_ring(maps.rings[worker], RING_BYTES)
    context = BpfContext(maps, ring, worker, resources.workers, loads=loads, lacks=resources.lacks)
    if worker == 0:
        context.decisions = KernelDecisions(
            open_decisions(maps), resources.steering, loads.total, lambda: _has_no_entries(maps)
        )
    return context


def _has_no_entries(maps: CarrierMaps) -> bool:
    return not any(count for flows in maps.flows.values() for _, _, count in flows.dump())


class Split(NamedTuple):
    """The services whose flows BPF carries, the others, and those for which the program decides."""

    carried: Sequence[VirtualService]
    others: Sequence[VirtualService]
    decided: Sequence[VirtualService]


def split(
    config: Config, services: Iterable[VirtualService], context: BpfContext | None = None
) -> Split:
    """Divide ``services`` by ``config``, and by what the program of ``context`` cannot carry."""
    lacks = frozenset() if context is None else context.lacks
    able = [service for service in config.services if service.method not in lacks]
    wanted = {service.name for service in able if service.wants_bpf}
    decided = {service.name for service in able if kernel_decides(service)}
    made = tuple(services)
    return Split(
        [service for service in made if service.name in wanted],
        [service for service in made if service.name not in wanted],
        [service for service in made if service.name in decided],
    )

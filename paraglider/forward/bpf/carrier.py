"""The carrier in BPF: a program in the kernel carries the packets of flows.

A flow in a carried state (``entry``) has an entry in a map, by which the program forwards its
packets. All others reach the worker, and are carried as without BPF. The program writes to the
entry when it last saw a packet, and the state of the connection, and reports its changes
(``events``). The worker reads the entry before the flow expires, and before it judges a segment.

After a restart a sweep over the maps, some entries at a time, finds out which flows have an entry,
and adds those that the journal lacks. So it does after lost events, and when BPF is switched off.

Rules: only ``sync`` raises, ``PlatformError``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

from paraglider.bpf.layout import ALIAS, CLOSED, DECIDED
from paraglider.core.flow import TCP, UDP, Flow
from paraglider.core.flow_states import CLOSED_STATES, GONE
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.bpf.compacting import Compactor
from paraglider.forward.bpf.context import BpfContext
from paraglider.forward.bpf.decided import DecidedFlows, set_decided
from paraglider.forward.bpf.entry import ALIASED, LASTING, PLAIN, UNKNOWN, FlowEntry, first_state
from paraglider.forward.bpf.events import ENTRIES
from paraglider.forward.bpf.flows import CarriedFlows
from paraglider.forward.bpf.slots import Slots, with_flows
from paraglider.forward.carrier import Carrier

if TYPE_CHECKING:
    from paraglider.forward.datapath import Datapath

#: entries, or flows, that a task takes at a time, and how many times in one ``sync``: a tick is
#: shorter than 5 ms
CHUNK: Final = 125
STEPS: Final = 4
#: events that count as one step; at least one step is taken
EVENTS_A_STEP: Final = 1500
#: restored flows that are skipped for each that has to be settled
_PASSED: Final = 8
#: tasks at most, the running one included, for a loss of events to add another sweep
_MOST_TASKS: Final = 2
#: seconds between two readings of the number of lost events
LOST_INTERVAL: Final = 1.0
#: seconds between two searches for indices that have become free, while translations wait for one
PLACE_INTERVAL: Final = 10.0


class BpfCarrier(Carrier[Flow]):
    """Carries the flows of ``table`` by the program of ``context``; ``worker`` carries the packets
    that reach the worker. ``slots`` has the translations.
    """

    def __init__(self, context: BpfContext, table: FlowTable, worker: Carrier[Flow]) -> None:
        self._context = context
        self._maps = maps = context.maps
        self._table = table
        self._worker = worker
        self._counted: dict[Backend, Translation] = {}
        self.slots = Slots(maps)
        self._flows = CarriedFlows(context, self.slots, table)
        self._decided = DecidedFlows(maps, self._flows, self.slots)
        self.compactor = Compactor(table, self._flows, context.worker)
        self._kernel_decides = False
        context.events.add(self._flows, self._decided)
        self._now = 0.0
        self._restored: list[Flow] = []
        # One sweep at the start serves all carriers.
        first = self._settle_restored() if context.carriers else self._first_sweep()
        self._tasks: deque[Iterator[None]] = deque([first])
        context.carriers.append(self)
        self._lost = context.events_lost
        if context.carriers[0] is self:
            context.counted = context.loads.is_settled(context.worker, self._lost)
        self._lost_at = self._place_at = 0.0
        table.carrier = self

    def configure(
        self,
        carried: Iterable[VirtualService],
        others: Iterable[VirtualService],
        decided: Iterable[VirtualService] = (),
    ) -> None:
        """Carry the flows of the services ``carried``, existing ones too; the worker carries those
        of ``others``. The program decides for the services ``decided``, a part of ``carried``.
        """
        carried, others, decided = tuple(carried), tuple(others), tuple(decided)
        self._kernel_decides = self._kernel_decides or bool(decided)
        self._counted = {b: t for service in carried for b, t in service.translations.items()}
        waiting = set_decided(carried, decided) or with_flows(carried)
        try:
            given_back = self.slots.configure(carried, others)
            self._context.reclaimer.request()
            if self.slots.unplaced:
                self._flows.refusals["no place for a backend"] += self.slots.unplaced
            if given_back:
                self.slots.flush()
                self._tasks.append(self._sweep())
            if waiting:
                self._tasks.append(self._install_all())
            self._context.decide(self, decided)
        except OSError as error:
            self._flows.refuse(error)

    def report_to(self, datapath: Datapath) -> None:
        """Call ``datapath.opened``, if set, for each flow that the program decides."""
        self._decided.datapath = datapath

    def switch(self, on: bool) -> None:
        """See ``Carrier``: each ``sync`` gives some flows back to the worker, or installs some."""
        if on != self._flows.on:
            self._flows.on = on
            self._context.enable_decisions(on)
            self._tasks.append(self._install_all() if on else self._sweep())

    @property
    def idle(self) -> bool:
        """Whether no task is running."""
        return not self._tasks

    def install(self, flow: Flow) -> int:
        """See ``Carrier``: the worker carries the present packet."""
        self._flows.install(flow)
        return self._worker.install(flow)

    def restore(self, flow: Flow) -> None:
        """See ``Carrier``: its entry tells whether it is carried, which a sweep reads if all flows
        are restored at once.
        """
        if flow.protocol in (TCP, UDP):
            flow.carried = UNKNOWN
            if self.restoring:
                self.refresh(flow)
            if flow.carried != PLAIN:
                self._restored.append(flow)

    def moved(self, flow: Flow) -> None:
        """See ``Carrier``."""
        self._flows.moved(flow)

    def refresh(self, flow: Flow) -> bool:
        """See ``Carrier``: reads the flow's entry."""
        entry = self._flows.read(flow) if flow.carried else None
        return entry is not None and self._flows.update(flow, entry)

    def expanded(self, flow: Flow) -> None:
        """See ``Carrier``."""
        self.compactor.expanded(flow, self._now)

    def lose_compact(self) -> None:
        """See ``Carrier``: a sweep finds its entry, by the first carrier."""
        self._flows.count -= 1
        self._context.events.overflowed = True

    def renew(self, flow: Flow) -> None:
        """See ``Carrier``."""
        self._flows.renew(flow)

    def fetch(self, protocol: int, key: bytes, now: float) -> bool:
        """See ``Carrier``: reads events, and then the entry that the packet may belong to."""
        if not (self._kernel_decides or self._tasks):
            return False
        self._now = now
        forward, reverse = self._table.forward[protocol], self._table.reverse[protocol]
        try:
            self._context.events.read(now, 0)  # the entry of this packet is read below
            flow = forward.get(key) or reverse.get(key)
            if flow is None or flow.state in CLOSED_STATES:
                found = self._decided.find(protocol, key)
                if found and (flow is None or self._flows.is_replaced(flow, found[1])):
                    self._reconcile(protocol, *found)
        except OSError as error:
            self._flows.refuse(error)
        return key in forward or key in reverse

    def remove(self, what: Flow | Backend) -> None:
        """See ``Carrier``: the state of a lost backend's translation stops the program."""
        if isinstance(what, Flow) and what.carried:
            self._flows.remove(what)
        else:
            self._worker.remove(what)

    def counters(self, backend: Backend) -> Mapping[str, int]:
        """See ``Carrier``: those of the worker, with the packets that passed it; BPF counts the
        others.
        """
        found = dict(self._worker.counters(backend))
        translation = self._counted.get(backend)
        if translation is not None:
            found.setdefault("packets_out", translation.packets_out)
            found.setdefault("bytes_out", translation.bytes_out)
        return found

    def packets(self, flow: Flow) -> tuple[int, int] | None:
        """See ``Carrier``: reads the flow's entry."""
        entry = self._flows.read(flow) if flow.carried else None
        return None if entry is None else entry.packets

    def counts(self) -> Mapping[str, int]:
        """See ``Carrier``."""
        found = {"carrier_refused": self._flows.refused}
        decisions = self._context.decisions
        if decisions is not None and self._context.carriers[0] is self:
            found["flooded"] = decisions.floods
        return found

    @property
    def carried(self) -> int:
        """See ``Carrier``."""
        return self._flows.count

    def sync(self, now: float) -> None:
        """See ``Carrier``: writes states, reads events, runs tasks, and reports refusals."""
        self._now = now
        try:
            self.slots.flush()
            self.slots.verify()
            if self._context.carriers[0] is self:
                self._read_events()
                self._context.ahead.look(now, self._reconcile)
                if now >= self._lost_at:
                    self._lost_at = now + LOST_INTERVAL
                    self._find_lost_events()
                if not self._context.worker and not self._tasks:
                    self._tasks.extend(filter(None, [self._context.reclaimer.next_task(now)]))
            if self.slots.unplaced and now >= self._place_at and not self._tasks:
                self._place_at = now + PLACE_INTERVAL
                self._tasks.append(self._place_waiting())
            if not any(each.restoring for each in self._context.carriers):
                self._run_tasks(max(1, STEPS - self._context.events.count // EVENTS_A_STEP))
            self._decided.sync(now)
            self._context.write_decisions(self, now)
            self.compactor.step(now)
        except OSError as error:
            self._flows.refuse(error)
        self._worker.sync(now)
        self._flows.report(now)

    @property
    def restoring(self) -> bool:
        """Whether flows are unread: tasks wait, since a sweep would have them restored at once."""
        return self._table.unread is not None

    # Events.

    def _read_events(self) -> None:
        carriers = self._context.carriers
        # A flow that is restored reads its entry: until then, keys wait.
        most = 0 if any(each.restoring for each in carriers) else ENTRIES
        for key in self._context.events.read(self._now, most):
            value = self._maps.flows_like(TCP, key).get(key)
            entry = None if value is None else FlowEntry.unpack(value)
            if entry and any(each.compactor.covers(TCP, key, entry) for each in carriers):
                continue
            if not any(each.refresh_key(key) for each in carriers) and entry:
                self._reconcile(TCP, key, entry)

    def refresh_key(self, key: bytes) -> bool:
        """Update the TCP flow with ``key`` by its entry; False if the table has no such flow."""
        flow = self._table.forward[TCP].get(key)
        if flow is not None:
            self.refresh(flow)
        return flow is not None

    def _find_lost_events(self) -> None:
        """Read all entries after a loss, since it is not known whose events were lost. Further
        losses meanwhile cause one more sweep, not one each.
        """
        lost, events = self._context.events_lost, self._context.events
        if (lost != self._lost or events.overflowed) and len(self._tasks) < _MOST_TASKS:
            self._lost, events.overflowed = lost, False
            self._tasks.append(self._sweep())
        if not self._tasks:
            self._context.loads.settle(self._context.worker, self._lost)

    # Tasks: iterators that yield after every step.

    def _run_tasks(self, steps: int) -> None:
        for _ in range(steps):
            if not self._tasks:
                return
            try:
                next(self._tasks[0])
            except StopIteration:
                self._tasks.popleft()

    def _first_sweep(self) -> Iterator[None]:
        """The sweep at the start, after which no entry of a predecessor is unknown."""
        yield from self._sweep()
        self._context.counted = False

    def _sweep(self) -> Iterator[None]:
        """Reconcile all entries; then settle restored flows."""
        for (protocol, _), entries in self._maps.flows.items():
            size, length = entries.key_size, entries.value_size
            for keys, values, count in entries.dump(CHUNK):
                for at in range(count):
                    entry = FlowEntry.unpack(values[at * length : (at + 1) * length])
                    self._reconcile(protocol, keys[at * size : (at + 1) * size], entry)
                yield
        yield from self._settle_restored()

    def _settle_restored(self) -> Iterator[None]:
        """Settle restored flows, those without an entry too."""
        while self._restored:
            some = self._restored[-_PASSED * CHUNK :]
            del self._restored[-_PASSED * CHUNK :]
            waiting = [flow for flow in some if not flow.carried or flow.carried == UNKNOWN]
            self._restored += waiting[CHUNK:]
            for flow in waiting[:CHUNK]:
                self._settle(flow)
            yield

    def _place_waiting(self) -> Iterator[None]:
        """Carry the flows of translations that found no index before, if there are free ones."""
        before = self.slots.unplaced
        yield from self.slots.place_waiting()
        if self.slots.unplaced < before:
            self.slots.flush()
            self._context.refresh_decisions()
            yield from self._install_all()

    def _install_all(self) -> Iterator[None]:
        """Install the flows in lasting states, after the carrier was switched on."""
        flows = self._table.walk(compact=False)
        while some := list(islice(flows, CHUNK)):
            for flow in some:
                self._settle(flow)
            yield

    def _settle(self, flow: Flow) -> None:
        if flow.carried == UNKNOWN and flow.state != GONE:
            self.refresh(flow)
        if not flow.carried and (flow.state in LASTING or flow.translation.decided):
            if flow.translation.routed:  # packets may have passed unseen, by a lease
                flow.expected = 0
            self._flows.install(flow)

    def _reconcile(self, protocol: int, key: bytes, entry: FlowEntry) -> bool:
        """Update the flow of an entry of this worker. An entry without a flow is removed, or waits
        if its backend may be a new one (``ahead``): returns whether it does.
        """
        carriers, own = self._context.carriers, self._flows.is_own(entry)
        if not own or any(each.reconcile_entry(protocol, key, entry) for each in carriers):
            return False
        known = not entry.flags & DECIDED or any(each.slots.find(entry.slot) for each in carriers)
        waits = not known and self._context.ahead.keep(protocol, key, self._now)
        if not waits:
            self._flows.discard(self._maps.flows_like(protocol, key), key)
        return waits

    def reconcile_entry(self, protocol: int, key: bytes, entry: FlowEntry) -> bool:
        """Update or add the flow of ``entry``; returns whether the entry has a flow, or stays
        without one.
        """
        if entry.flags & ALIAS:
            flow = self._table.reverse[protocol].get(key)
            if flow is None:
                return self._decided.keeps_alias(protocol, key, entry)
            return flow.carried == ALIASED or (flow.carried == UNKNOWN and flow.translation.aliased)
        if self.compactor.covers(protocol, key, entry):
            return True
        flow = self._table.forward[protocol].get(key)
        if flow is None or self._decided.forget_replaced(flow, entry, self._now):
            flow = self._add_from_entry(protocol, key, entry)
        if flow is None:
            counted = self._context.counted
            return self._decided.keeps_entry(protocol, key, entry, self._now, counted)
        self._flows.reconcile(flow, entry)
        return True

    def _add_from_entry(self, protocol: int, key: bytes, entry: FlowEntry) -> Flow | None:
        """Add the flow of an entry to the table, which lacks it, and return it; None if it has
        ended, or its backend is unknown or lost.
        """
        table, translation = self._table, self.slots.find(entry.slot)
        if translation is None or translation.datagrams_lost or entry.flags & CLOSED:
            return None
        size, seen = len(translation.vip), min(entry.seen, self._now)
        state = first_state(protocol, entry)
        reverse_key = translation.reverse_key(key)
        if (
            key[size:-4] != translation.vip
            or not self._decided.end_closed(protocol, reverse_key, self._now)
            or seen + table.timeouts.by_state[state] <= self._now
            or not table.make_room(protocol, self._now)
        ):
            return None
        flow = Flow(protocol, key, reverse_key, translation, state, seen)
        flow.carried = UNKNOWN
        table.add(flow)
        self._decided.added(flow, entry)
        return flow

"""The entries of flows in the BPF carrier's maps: inserted, read and removed.

Lives here: ``CarriedFlows``, which records for each flow of the flow table whether it has an entry
(``Flow.carried``).
Rules: an entry is inserted and removed, never updated in place, since the program writes to it. A
refusal of the kernel is counted, and the worker carries the flow. A new flow costs one system call;
flows that the program saw close are removed several in one call.
"""

from __future__ import annotations

from collections import Counter
from errno import EEXIST, errorcode
from typing import TYPE_CHECKING, Final

from paraglider.bpf.layout import ALIAS, CLOSED, DECIDED, DIRECT, FLOW, KEY4, REPLIED
from paraglider.bpf.layout import ESTABLISHED as PROVEN
from paraglider.bpf.maps import Map
from paraglider.core.flow import TCP, UDP, Flow
from paraglider.core.flow_states import CLOSED_STATES, SYN_SENT
from paraglider.core.flow_table import FlowTable
from paraglider.core.translation import Translation
from paraglider.errors import PlatformError
from paraglider.forward.bpf.entry import (
    ALIASED,
    COMPACTED,
    LASTING,
    NONE,
    NOT_CARRIED,
    PLAIN,
    UNKNOWN,
    FlowEntry,
    evidence_of,
    flags_of,
    is_later,
    seen_states,
    set_numbers,
    ticks_of,
)
from paraglider.forward.bpf.slots import Slots

if TYPE_CHECKING:
    from paraglider.forward.bpf.context import BpfContext

#: seconds between two reports of refusals
REPORT_INTERVAL: Final = 60.0

_KEY4: Final = KEY4.size


class CarriedFlows:
    """The entries of the flows of ``table`` in the maps of ``context``; ``slots`` has the
    translations.

    ``count`` is the number of flows that are known to have an entry. ``lasting`` has those that may
    become compact (``compacting``), since it was last cleared; ``expanded`` counts those that were
    and no longer are. ``handling``: events that need no entry are being handled. While not ``on``,
    no entry is inserted. ``replaced`` has closed flows whose entries are of later connections,
    since it was last cleared. ``refused`` counts the kernel's refusals; ``refusals`` counts them by
    error since it was last cleared.
    """

    def __init__(self, context: BpfContext, slots: Slots, table: FlowTable) -> None:
        self.on = True
        self.count = 0
        self.lasting: list[Flow] = []
        self.expanded = 0
        self.handling = False
        self.refused = 0
        self.refusals: Counter[str] = Counter()
        self.replaced: list[tuple[bytes, Translation]] = []  # by their keys
        self._report_at = 0.0
        maps = context.maps
        self._maps4 = {protocol: maps.flows[protocol, 4] for protocol in (TCP, UDP)}
        self._maps6 = {protocol: maps.flows[protocol, 6] for protocol in (TCP, UDP)}
        self._slots = slots
        self.table = table
        self._worker = context.worker
        self._workers = context.workers
        self._removed = context.removed
        self._entry_flags = 0  # of the entry by which a flow is being updated
        self._deferring = False  # entries are removed with the next ``flush``
        self._closed: list[tuple[Map, bytes, bytes, Translation]] = []  # key, alias or empty
        self._ticks = -1
        self._new_values: dict[int, bytes] = {}  # entries of new flows at ``_ticks``, by slot

    def install(self, flow: Flow) -> None:
        """Carry ``flow`` from its next packet on, if it is in a state that is carried."""
        flags = flags_of(flow)
        if flags == NONE or flow.carried:
            return
        ticks, slot, expected = ticks_of(flow.seen), flow.translation.slot, flow.expected
        if flags or expected:
            progress = flow.progress if flags & DIRECT else 0
            flags |= evidence_of(flow)
            self._insert(flow, FLOW.pack(ticks, flags, expected, slot, self._worker, 0, progress))
            return
        # Most flows: those to one backend that are opened in one tick have equal entries.
        if ticks != self._ticks:
            self._ticks = ticks
            self._new_values.clear()
        value = self._new_values.get(slot)
        if value is None:
            value = self._new_values[slot] = FLOW.pack(ticks, 0, 0, slot, self._worker, 0, 0)
        self._insert(flow, value)

    def moved(self, flow: Flow) -> None:
        """``flow`` has changed its state: install or remove it, or replace its entry if that lacks
        a flag that the worker saw.
        """
        flags = flags_of(flow)
        if flags == NONE:
            if flow.carried:
                self.remove(flow)
            return
        if flow.carried and flags & ~self._entry_flags:
            entry = self.read(flow)
            if entry is not None and flags & ~entry.flags:
                self.remove(flow)
                self._insert_again(flow, entry, flags)
                return
        if flow.carried == PLAIN and COMPACTED[flow.state]:
            self.lasting.append(flow)
        elif not flow.carried and flow.state in LASTING:
            self.install(flow)

    def read(self, flow: Flow) -> FlowEntry | None:
        """The entry of ``flow``, or None; sets whether the flow is carried."""
        try:
            value = self._map_of(flow).get(flow.forward_key)
            entry = None if value is None else FlowEntry.unpack(value)
            matches = entry is not None and self._matches(flow, entry)
        except OSError as error:
            self.refuse(error)
            return None
        if entry is None:
            self.set_carried(flow, NOT_CARRIED)
        elif not matches:
            if self.is_own(entry) and not self.is_replaced(flow, entry):
                self.remove(flow)
            else:  # of a flow of the worker that gets the packets by now, or of a new one
                self.set_carried(flow, NOT_CARRIED)
            entry = None
        elif flow.carried == UNKNOWN:
            self._settle(flow)
        return entry

    def update(self, flow: Flow, entry: FlowEntry) -> bool:
        """Update ``flow`` by its ``entry``; returns whether time or state has changed."""
        seen, state = flow.seen, flow.state
        flow.seen = max(seen, entry.seen)
        if entry.flags & DIRECT:
            set_numbers(flow, entry)
        elif entry.flags & PROVEN:
            if entry.packets_back or not flow.expected:  # else the backend's pass the worker
                flow.expected = entry.ack
        elif state == SYN_SENT:
            flow.progress = entry.ack
        self._apply_flags(flow, entry.flags, entry.packets_out, entry.packets_back)
        return flow.seen > seen or flow.state != state

    def renew(self, flow: Flow) -> None:
        """Replace the entry of the one-sided ``flow`` by one with the flow's numbers."""
        entry, flags = self.read(flow), flags_of(flow)
        if entry is not None and flags != NONE:
            self.remove(flow)
            self._insert_again(flow, entry, flags)

    def handle_event(self, flow: Flow, flags: int, now: float) -> None:
        """Update ``flow`` by an event with the ``flags`` of its entry, without reading the entry.
        If the flow is closed, the next ``flush`` removes the entry.
        """
        if flow.seen < now:
            flow.seen = now
        if not flags & PROVEN:
            flags &= ~REPLIED  # a reply opened the flow: the event that it is established follows
        self._deferring = True
        self._apply_flags(flow, flags, 0, 0)
        self._deferring = False

    def flush(self) -> None:
        """Remove the entries of flows that events have closed, but those of later connections, to
        which the program has given the place of the closed ones.
        """
        closed, self._closed = self._closed, []
        for flows in (*self._maps4.values(), *self._maps6.values()):
            keys: list[bytes] = []
            try:
                for where, key, alias, translation in closed:
                    if where is not flows:
                        continue
                    if translation.decided and is_later(flows.get(key), translation.slot):
                        self.replaced.append((key, translation))
                        continue
                    keys.append(key)
                    if alias and self.has_alias(flows, alias, translation):
                        keys.append(alias)
                if keys:
                    flows.delete_each(keys)
            except OSError as error:
                self.refuse(error)

    def remove(self, flow: Flow) -> None:
        """Remove the entry of ``flow``, which may have one, and its alias."""
        flows = self._map_of(flow)
        if self._deferring:
            alias = b"" if flow.carried == PLAIN else flow.reverse_key
            self._closed.append((flows, flow.forward_key, alias, flow.translation))
            self.set_carried(flow, NOT_CARRIED)
            return
        self._removed.add(flow.forward_key)
        try:
            flows.delete(flow.forward_key)
            if flow.carried != PLAIN and self.has_alias(flows, flow.reverse_key, flow.translation):
                flows.delete(flow.reverse_key)
        except OSError as error:
            self.refuse(error)
        self.set_carried(flow, NOT_CARRIED)

    def has_alias(self, flows: Map, key: bytes, translation: Translation) -> bool:
        """Whether the alias with ``key`` is of a flow with ``translation``, and not of a later one
        of another service with the backend's port. Raises ``OSError``.
        """
        entry = FlowEntry.unpack(flows.get(key) or bytes(FLOW.size))
        return bool(entry.flags & ALIAS) and self._slots.is_of(entry.slot, translation)

    def is_own(self, entry: FlowEntry) -> bool:
        """Whether this worker is responsible for ``entry``. The first worker is also responsible
        for the entries of workers that no longer exist.
        """
        owner = entry.owner
        return owner == self._worker or (self._worker == 0 and owner >= self._workers)

    def is_replaced(self, flow: Flow, entry: FlowEntry) -> bool:
        """Whether ``entry``, with the key of ``flow``, is of a later connection: the program has
        opened it after the flow was closed, and its event was not read yet, or is lost.
        """
        flags = entry.flags
        if flags & (DECIDED | CLOSED | ALIAS) != DECIDED:
            return False
        if flow.state in CLOSED_STATES:
            return True
        return not self._matches(flow, entry) and self._slots.find(entry.slot) is not None

    def reconcile(self, flow: Flow, entry: FlowEntry) -> None:
        """Update ``flow`` by its ``entry``, for which this worker is responsible; remove or
        replace the entry if it is not as it should be.
        """
        if not flow.carried:
            flow.carried = UNKNOWN
        if not self._matches(flow, entry) or flags_of(flow) == NONE:
            self._replace_entry(flow, entry)
            return
        if flow.carried == UNKNOWN:
            self._settle(flow)
        self.update(flow, entry)
        if not flow.carried:
            return
        if not self.on or not flow.translation.slot:
            self.remove(flow)
        elif entry.owner != self._worker:
            self._replace_entry(flow, entry)

    def set_carried(self, flow: Flow, carried: int) -> None:
        """Set ``flow.carried`` (``entry.PLAIN``, …)."""
        self.count += (PLAIN <= carried <= ALIASED) - (PLAIN <= flow.carried <= ALIASED)
        if carried == PLAIN and COMPACTED[flow.state]:
            self.lasting.append(flow)
        flow.carried = carried

    def discard(self, entries: Map, key: bytes) -> None:
        """Remove the entry with ``key``, which belongs to no flow; raises ``OSError``."""
        self._removed.add(key)
        entries.delete(key)

    def discard_each(self, entries: Map, keys: list[bytes]) -> None:
        """Remove the entries with ``keys``, which belong to no flow; raises ``OSError``."""
        for key in keys:
            self._removed.add(key)
        if keys:
            entries.delete_each(keys)

    def refuse(self, error: OSError) -> None:
        """Count a refusal of the kernel."""
        self._refused(error.errno or 0)

    def report(self, now: float) -> None:
        """Report the refusals since the last report, once a minute; raises ``PlatformError``."""
        refusals = self.refusals
        if refusals and now >= self._report_at:
            self._report_at = now + REPORT_INTERVAL
            reasons = ", ".join(f"{name}: {count}" for name, count in sorted(refusals.items()))
            refusals.clear()
            raise PlatformError(
                f"the kernel refuses BPF entries ({reasons})",
                "the workers carry the packets; after E2BIG raise `max` of `flows`",
            )

    def _map_of(self, flow: Flow) -> Map:
        key = flow.forward_key
        return (self._maps4 if len(key) == _KEY4 else self._maps6)[flow.protocol]

    def _apply_flags(self, flow: Flow, flags: int, packets_out: int, packets_back: int) -> None:
        """Move ``flow`` through the states that the flags and packets of its entry show."""
        self._entry_flags = flags
        for after in seen_states(flow, flags, packets_out, packets_back):
            self.table.move(flow, after, flow.seen)
        self._entry_flags = 0

    def _matches(self, flow: Flow, entry: FlowEntry) -> bool:
        """Whether ``entry`` is that of ``flow``, and not of an earlier flow with the same key."""
        return not entry.flags & ALIAS and self._slots.is_of(entry.slot, flow.translation)

    def _insert_again(self, flow: Flow, entry: FlowEntry, flags: int) -> None:
        """Insert a copy of the former ``entry`` of ``flow``, with ``flags`` added."""
        new = entry._replace(
            flags=entry.flags | flags, slot=flow.translation.slot, owner=self._worker
        )
        if flags & DIRECT:
            new = new._replace(
                flags=new.flags | evidence_of(flow), ack=flow.expected, packets_back=flow.progress
            )
        elif not entry.flags & PROVEN:
            new = new._replace(ack=flow.expected)
        self._insert(flow, new.pack())

    def _insert(self, flow: Flow, value: bytes) -> None:
        """Insert the entry ``value`` for ``flow``."""
        translation = flow.translation
        if not self.on or not translation.slot:
            return
        flows, key = self._map_of(flow), flow.forward_key
        try:
            error = flows.insert(key, value)
            if error == EEXIST:
                if flow.state in LASTING and self._reuse(flow):
                    return
                self.discard(flows, key)
                error = flows.insert(key, value)
            if not error and translation.aliased:
                error = self._insert_alias(flow, flows)
                if error:
                    flows.delete(key)
        except OSError as refusal:
            self.refuse(refusal)
            return
        if error:
            self._refused(error)
            return
        self.set_carried(flow, ALIASED if translation.aliased else PLAIN)

    def _insert_alias(self, flow: Flow, flows: Map) -> int:
        """Insert an alias for the replies of ``flow``; returns 0 or the error number."""
        alias = FlowEntry(0, ALIAS, 0, flow.translation.slot, self._worker).pack()
        error = flows.insert(flow.reverse_key, alias)
        if error == EEXIST:
            present = flows.get(flow.reverse_key)
            if present == alias:
                return 0
            if present is not None and FlowEntry.unpack(present).flags & ALIAS:
                flows.delete(flow.reverse_key)
                error = flows.insert(flow.reverse_key, alias)
        return error

    def _reuse(self, flow: Flow) -> bool:
        """Keep the entry that ``flow`` has already; returns False if it is another flow's."""
        flow.carried = UNKNOWN
        entry = self.read(flow)
        if entry is not None:
            self.update(flow, entry)
        return entry is not None

    def _replace_entry(self, flow: Flow, entry: FlowEntry) -> None:
        """Remove ``entry``; install ``flow``, if it is carried, with the contents of ``entry``."""
        matches = self._matches(flow, entry)
        self.remove(flow)
        flags = flags_of(flow)
        if matches and flags != NONE:
            self._insert_again(flow, entry, flags)
        else:
            self.install(flow)

    def _settle(self, flow: Flow) -> None:
        """``flow`` turned out to have an entry: insert the alias of its replies, if needed."""
        self._removed.add(flow.forward_key)  # the entry, and its events, may be older than the flow
        flows = self._map_of(flow)
        try:
            if not flow.translation.aliased:
                self.set_carried(flow, PLAIN)
            elif self._insert_alias(flow, flows):
                self.remove(flow)
            else:
                self.set_carried(flow, ALIASED)
        except OSError as error:
            self.refuse(error)

    def _refused(self, error: int) -> None:
        self.refusals[errorcode.get(error, str(error))] += 1
        self.refused += 1

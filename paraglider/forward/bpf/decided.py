"""Flows that the program decided: how their worker adds them, by an event or by an entry.

With an event the worker opens the flow as if it had decided itself: the flow is counted, journalled
and listed. A connection that was closed before its event was read is counted, but opens no flow;
its entry stays for a while (``closed``).

The worker may read an entry before its event: in a sweep, or because a packet of the flow passes
the worker. Then the flow is added from the entry, and its event, read later, opens nothing.

Lives here: ``DecidedFlows``, those of one carrier, and ``set_decided``.
Rules: time is an argument. Memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from paraglider.bpf.layout import ALIAS, CLOSED, DECIDED, INDEX, KEY4, ORIGIN
from paraglider.bpf.maps import CarrierMaps, Map
from paraglider.core.flow import TCP, UDP, Flow
from paraglider.core.flow_states import CLOSED_STATES
from paraglider.core.service import VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.bpf.closed import ClosedEntries
from paraglider.forward.bpf.entry import ALIASED, NOT_CARRIED, PLAIN, FlowEntry
from paraglider.forward.bpf.flows import CarriedFlows
from paraglider.forward.bpf.slots import Slots

if TYPE_CHECKING:
    from paraglider.forward.datapath import Datapath


class DecidedFlows:
    """The decided flows among ``flows``, whose translations are in ``slots``. Each new one is
    reported to ``datapath.opened``, if both are set.
    """

    def __init__(self, maps: CarrierMaps, flows: CarriedFlows, slots: Slots) -> None:
        self.datapath: Datapath | None = None
        self._maps = maps
        self._flows = flows
        self._slots = slots
        self._closed = ClosedEntries(maps, flows, slots)
        #: keys of entries that were read before their event, with the slot; those before the last
        #: reading
        self._early: dict[tuple[int, bytes], int] = {}
        self._early_before: dict[tuple[int, bytes], int] = {}

    def handle_earlier(self, protocol: int, key: bytes, slot: int) -> bool:
        """The program has opened a connection with ``key`` and the translation ``slot``, and
        another since. Returns whether it is this carrier's.
        """
        translation = self._slots.find(slot)
        if translation is None or not _goes_to_vip(key, translation):
            return False
        if not self._was_counted(protocol, key, slot):
            self._count(protocol, key, translation)
        return True

    def handle_opening(self, protocol: int, key: bytes, slot: int, flags: int, now: float) -> bool:
        """The program has opened a connection with ``key``, the last one, with the translation
        ``slot``; its entry has ``flags``. Returns whether it is this carrier's.
        """
        translation = self._slots.find(slot)
        if translation is None or not _goes_to_vip(key, translation):
            return False
        if self._was_counted(protocol, key, slot):
            flow = self._flows.table.forward[protocol].get(key)
            if flow is not None:
                self._flows.handle_event(flow, flags, now)
            return True
        self._forget_before(protocol, key, now)
        if flags & CLOSED:
            self._count(protocol, key, translation)
            self._closed.add(key, translation, now)
        else:
            self._open(protocol, key, translation, flags, now)
        return True

    def added(self, flow: Flow, entry: FlowEntry) -> None:
        """``flow`` was added from its ``entry``: count its connection if the program decided it,
        and ignore its event.
        """
        if entry.flags & DECIDED:
            self._early[flow.protocol, flow.forward_key] = entry.slot
            self._count(flow.protocol, flow.forward_key, flow.translation)

    def forget_replaced(self, flow: Flow, entry: FlowEntry, now: float) -> bool:
        """Forget ``flow`` if ``entry``, with its key, is of a later connection; returns whether."""
        if not self._flows.is_replaced(flow, entry):
            return False
        self._forget_before(flow.protocol, flow.forward_key, now)
        return True

    def end_closed(self, protocol: int, reverse_key: bytes, now: float) -> bool:
        """Forget the flow with ``reverse_key`` if it is closed, since the program has opened one
        with the same replies, of another service with the backend's port. Returns whether none is
        left.
        """
        table, flows = self._flows.table, self._flows
        before = table.reverse[protocol].get(reverse_key)
        if before is None:
            return True
        was_carried = before.carried
        entry = flows.read(before) if was_carried else None  # its event comes later
        if entry is not None:
            flows.update(before, entry)
        # The program removes the entry of a closed flow whose alias it replaces.
        removed = entry is None and was_carried == ALIASED and before.carried == NOT_CARRIED
        if not (removed or before.state in CLOSED_STATES):
            return False
        table.forget(before, now)
        return True

    def keeps_entry(
        self, protocol: int, key: bytes, entry: FlowEntry, now: float, counted: bool
    ) -> bool:
        """Whether an entry without a flow stays: that of a closed connection, which is counted
        here if it was not counted yet. ``counted``: the predecessor did, or its event will.
        """
        translation = self._slots.find(entry.slot)
        closed = protocol == TCP and entry.flags & CLOSED and entry.flags & DECIDED
        if not closed or translation is None or not _goes_to_vip(key, translation):
            return False
        if key not in self._closed:
            if not counted:
                self._early[protocol, key] = entry.slot
                self._count(protocol, key, translation)
            self._closed.add(key, translation, now)
        return True

    def keeps_alias(self, protocol: int, reverse_key: bytes, entry: FlowEntry) -> bool:
        """Whether an alias without a flow stays: its entry was not read yet, or stays too."""
        translation = self._slots.find(entry.slot)
        if translation is None:
            return False
        value = self._entries(translation, protocol).get(translation.forward_key(reverse_key))
        return value is not None and bool(FlowEntry.unpack(value).flags & DECIDED)

    def find(self, protocol: int, key: bytes) -> tuple[bytes, FlowEntry] | None:
        """Key and entry of the flow that a packet with ``key``, a client's or a backend's, may
        belong to. Raises ``OSError``.
        """
        if protocol not in (TCP, UDP):
            return None
        entries, size = self._maps.flows_like(protocol, key), (len(key) - 4) // 2
        family = 4 if len(key) == KEY4.size else 6
        value = entries.get(key)
        entry = None if value is None else FlowEntry.unpack(value)
        if entry is not None and not entry.flags & ALIAS:
            return key, entry
        if entry is not None:
            slot = entry.slot
        else:
            found = self._maps.origins.get(ORIGIN.pack(key[:size], key[-4:-2], protocol, family))
            if found is None:
                return None
            (slot,) = INDEX.unpack(found)
        translation = self._slots.find(slot)
        if translation is None:
            return None
        client_key = translation.forward_key(key)
        value = entries.get(client_key)
        return None if value is None else (client_key, FlowEntry.unpack(value))

    def ring_was_read(self) -> None:
        """The ring was read to its end: entries read before the previous reading have no event."""
        self._early_before = self._early
        self._early = {}

    def sync(self, now: float) -> None:
        """Remove entries of closed connections that have stayed long enough; raises ``OSError``."""
        for key, translation in self._flows.replaced:
            self._closed.add(key, translation, now)
        self._flows.replaced.clear()
        self._closed.sync(now)

    def _was_counted(self, protocol: int, key: bytes, slot: int) -> bool:
        """Whether an opening was counted when its entry was read; once."""
        for early in (self._early, self._early_before):
            if early and early.get((protocol, key)) == slot:
                del early[protocol, key]
                return True
        return False

    def _forget_before(self, protocol: int, key: bytes, now: float) -> None:
        """Forget the flow with ``key``, which is closed, since the program has opened another. The
        entry is that one's.
        """
        table, flows = self._flows.table, self._flows
        flows.handling = True
        before = table.forward[protocol].get(key)
        flows.handling = False
        if before is not None:
            flows.set_carried(before, NOT_CARRIED)
            table.forget(before, now)

    def _open(
        self, protocol: int, key: bytes, translation: Translation, flags: int, now: float
    ) -> None:
        """Open the flow that the program has opened."""
        if protocol == TCP:
            self._closed.discard(key)
        table, flows = self._flows.table, self._flows
        reverse_key = translation.reverse_key(key)
        if not self.end_closed(protocol, reverse_key, now) or not table.make_room(protocol, now):
            self._remove(protocol, key, translation)
            return
        flow = table.open(protocol, key, reverse_key, translation, now)
        flows.set_carried(flow, ALIASED if translation.aliased else PLAIN)
        if protocol == UDP:
            table.refresh(flow)
        else:
            flows.handle_event(flow, flags, now)
        self._report(protocol, key, translation)

    def _count(self, protocol: int, key: bytes, translation: Translation) -> None:
        translation.backend.conns += 1
        self._report(protocol, key, translation)

    def _report(self, protocol: int, key: bytes, translation: Translation) -> None:
        if self.datapath is not None and self.datapath.opened is not None:
            self.datapath.opened(protocol, key, translation.backend)

    def _entries(self, translation: Translation, protocol: int) -> Map:
        return self._maps.flows[protocol, 4 if len(translation.vip) == 4 else 6]

    def _remove(self, protocol: int, key: bytes, translation: Translation) -> None:
        """Remove an entry without a flow, and its alias."""
        flow = self._flows.table.forward[protocol].get(key)
        if flow is not None and flow.carried:
            return  # it belongs to another flow by now
        entries = self._entries(translation, protocol)
        self._flows.discard(entries, key)
        reverse_key = translation.reverse_key(key)
        if translation.aliased and self._flows.has_alias(entries, reverse_key, translation):
            entries.delete(reverse_key)


def set_decided(carried: Iterable[VirtualService], decided: Iterable[VirtualService]) -> bool:
    """Set for which of the services ``carried`` the program decides; returns whether existing flows
    have to be installed. Without an entry, the program would decide again about their datagrams.
    """
    chosen, waiting = set(decided), False
    for service in carried:
        for translation in service.translations.values():
            before, translation.decided = translation.decided, service in chosen
            waiting |= translation.decided > before and translation.backend.has_flows
    return waiting


def _goes_to_vip(key: bytes, translation: Translation) -> bool:
    """Whether packets with ``key`` go to the VIP of ``translation``."""
    return key[len(translation.vip) : -4] == translation.vip

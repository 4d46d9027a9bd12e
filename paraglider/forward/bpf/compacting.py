"""Makes flows compact (``core.compact``) that the program has carried for a while.

Most connections end within seconds; their flows stay objects, so that they cost nothing more. Where
many are opened, few wait so long, since an object takes twenty times the memory. After a restart,
flows become compact as they are restored.

Lives here: ``Compactor``, of the flows of one carrier.
Rules: the number of flows in a step is bounded. A flow with an alias does not become compact.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from paraglider.bpf.layout import CLOSED, FIN_BACK, FIN_OUT
from paraglider.core.compact import allow_compact
from paraglider.core.flow import Flow
from paraglider.core.flow_table import FlowTable
from paraglider.forward.bpf.entry import PLAIN, FlowEntry
from paraglider.forward.bpf.flows import CarriedFlows

#: seconds for which a flow is established before it becomes compact
AGE: Final = 5.0
#: flows that wait for it; of more, those that wait longest become compact before they are so old
MOST_WAITING: Final = 4096
#: flows in one step: 10,000 a second
STEP: Final = 500

#: bytes of the memory of compact flows that are provided in one step after a restart, in half a
#: millisecond; meanwhile restored flows wait
PREPARED: Final = 1 << 22

_ENDING: Final = FIN_OUT | FIN_BACK | CLOSED


class Compactor:
    """Makes the flows of ``table`` compact that are among ``flows``, when they are ``age`` old."""

    def __init__(self, table: FlowTable, flows: CarriedFlows, worker: int) -> None:
        self.age = AGE
        self._table = table
        self._flows = flows
        self._worker = worker
        self._waiting: deque[tuple[float, list[Flow]]] = deque()  # since when
        self._count = 0  # of the flows that wait

    def step(self, now: float) -> None:
        """Make some flows compact; called with each tick."""
        table, waiting, flows = self._table, self._waiting, self._flows.lasting
        self._flows.lasting = []
        if table.journal is None:
            return
        if flows:
            waiting.append((now, flows))
            self._count += len(flows)
        until = now - (self.age if table.unread is None else 0.0)
        left = STEP
        while left and waiting and (waiting[0][0] <= until or self._count > MOST_WAITING):
            flows = waiting[0][1]
            some = flows[-left:]
            del flows[-left:]
            if not flows:
                waiting.popleft()
            left -= len(some)
            self._count -= len(some)
            if table.held or table.damaged or self._provide_memory(some):
                # They wait again, but those that have ended do not.
                self._flows.lasting += [flow for flow in some if flow.carried == PLAIN]
            else:
                self._make_compact(some)

    def _provide_memory(self, flows: list[Flow]) -> bool:
        """Provide memory for ``flows``, while others are restored; returns whether they have to
        wait for more.
        """
        if self._table.unread is None:
            return False
        allow_compact(self._table)
        present = {flow.protocol for flow in flows}
        return any(
            compact.prepare(PREPARED)
            for compact in self._table.compact
            if compact.protocol in present
        )

    def _make_compact(self, flows: list[Flow]) -> None:
        table = self._table
        allow_compact(table)
        for flow in flows:
            if flow.carried == PLAIN:
                for compact in table.compact:
                    if compact.protocol == flow.protocol:
                        compact.add(flow)
        for compact in table.compact:
            table.forward[compact.protocol].trim()
            table.reverse[compact.protocol].trim()

    def expanded(self, flow: Flow, now: float) -> None:
        """See ``Carrier``: updates ``flow`` by its entry; without one, and for an event, which
        tells what has changed, it counts as just seen.
        """
        self._flows.expanded += 1
        flow.carried = PLAIN
        entry = None if self._flows.handling else self._flows.read(flow)
        if entry is not None:
            self._flows.update(flow, entry)
        else:
            flow.seen = now
        if flow.carried == PLAIN:
            self._flows.lasting.append(flow)

    def covers(self, protocol: int, key: bytes, entry: FlowEntry) -> bool:
        """Whether ``entry`` is as it should be, of a compact flow, which need not be expanded."""
        if not self._flows.on or entry.owner != self._worker or entry.flags & _ENDING:
            return False
        for compact in self._table.compact:
            if compact.protocol == protocol:
                translation = compact.translation_of(key)
                return translation is not None and translation.slot == entry.slot
        return False

"""What has flows of a table beside the table itself: their carrier, a journal, compact records.

Lives here: the interfaces that ``flow_table`` uses.
Rules: a carrier is told of every flow that is restored or changes its state, and a carried flow is
removed there when it leaves the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from paraglider.core.flow import Flow
from paraglider.core.translation import Translation


class FlowCarrier(Protocol):
    """What a table needs of the carrier of its flows (``forward.carrier.Carrier``)."""

    def restore(self, flow: Flow) -> None:
        """``flow`` was restored from a journal: find out whether it is still carried."""

    def moved(self, flow: Flow) -> None:
        """The state of ``flow`` has changed: start or stop carrying it."""

    def refresh(self, flow: Flow) -> bool:
        """Update time and state of the carried ``flow``; returns whether either has changed."""

    def remove(self, flow: Flow) -> None:
        """The carried ``flow`` has left the table: stop carrying it."""

    def renew(self, flow: Flow) -> None:
        """The carried one-sided ``flow`` has newer numbers than the carrier: give it these."""

    def expanded(self, flow: Flow) -> None:
        """``flow``, which is carried, was compact until now: update it."""

    def lose_compact(self) -> None:
        """A compact flow is lost, which may be carried still: find it."""

    def fetch(self, protocol: int, key: bytes, now: float) -> bool:
        """The table has no flow for a packet with ``key``, or one that may have ended: add the
        one that the carrier decided, if any, in its place; returns whether the table has one now.
        """


class UnreadFlows(Protocol):
    """The flows of the table's journal that are not in it yet (``core.unread``)."""

    def step(self, flows: int = 1) -> int:
        """Restore at least ``flows``, unless fewer are left; returns how many were read."""

    def finish(self) -> None:
        """Restore all that are left."""


class CompactFlowsOf(Protocol):
    """The compact flows of one protocol (``core.compact``)."""

    protocol: int
    state: int

    def add(self, flow: Flow) -> bool:
        """Make ``flow`` of the table compact; False if it cannot be."""

    def prepare(self, most: int) -> bool:
        """Provide at most ``most`` bytes of memory for the journal's flows; returns whether any is
        left to provide.
        """

    def translation_of(self, key: bytes) -> Translation | None:
        """The translation of the flow whose client's packets have ``key``; None without one."""

    def expire(self, now: float, budget: int) -> int:
        """See ``FlowTable.expire``."""

    def expand_idle(self, now: float, idle: float) -> None:
        """Expand some of the flows that may have been idle for ``idle`` seconds."""

    def step(self, flows: int) -> int:
        """Expand ``flows``, unless fewer are left; returns how many."""

    def walk(self) -> Iterator[Flow]:
        """A copy of each flow."""

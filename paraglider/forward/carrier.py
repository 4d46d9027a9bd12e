"""``Carrier``: forwards the packets of a flow once its backend is decided.

A datapath decides about a flow and installs it in the carrier of its method: the worker's own
translation (``nat``), marks in conntrack (``offload``), leases in nft sets (``dsr``). The datapath
does not know how its carrier works, so another carrier is one module and one line in the method's
``build``.
Rules: a carrier makes system calls only in ``sync``, which the worker's tick calls, or when a flow
is installed or removed; it is never called for a packet of an established flow that passes the
worker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from paraglider.core.pool import Backend

#: the datapath's record of a flow: ``core.flow.Flow``, or less if the kernel carries it
F = TypeVar("F")


class Carrier(ABC, Generic[F]):
    """Carries flows from their decision to their end.

    A carrier in the kernel that carries the packets of a flow table's flows is set as the table's
    ``carrier``: the table then calls ``restore``, ``moved``, ``refresh``, ``renew``, ``fetch``,
    ``expanded``, ``lose_compact`` and ``remove`` (``core.flow_interfaces``). For any other they do
    nothing.
    """

    @abstractmethod
    def install(self, flow: F) -> int:
        """Carry ``flow`` from its next packet on; returns the verdict for the present packet."""

    @abstractmethod
    def remove(self, what: F | Backend) -> None:
        """Stop carrying a flow, or all flows to a backend, with the next ``sync`` at the latest. A
        flow that is not carried is ignored.
        """

    def restore(self, flow: F) -> None:
        """``flow`` was restored from a journal: find out whether it is still carried."""
        return

    def moved(self, flow: F) -> None:
        """The state of ``flow`` has changed: start or stop carrying it, from its next packet on."""
        return

    def refresh(self, flow: F) -> bool:
        """Update time and state of ``flow`` from the kernel; returns whether either has changed."""
        return False

    def fetch(self, protocol: int, key: bytes, now: float) -> bool:
        """Add the flow that the kernel decided for a packet with ``key`` to the flow table, in the
        place of one that has ended; returns whether the table has one now.
        """
        return False

    def expanded(self, flow: F) -> None:
        """``flow``, which was compact (``core.compact``), is in the flow table again."""
        return

    def lose_compact(self) -> None:
        """A compact flow is lost, whose entry in the kernel may be there still."""
        return

    def renew(self, flow: F) -> None:
        """``flow``, whose replies do not pass here, has newer numbers than the kernel."""
        return

    def packets(self, flow: F) -> tuple[int, int] | None:
        """Packets of ``flow`` that the kernel carried, to the backend and back; None if the worker
        carries it.
        """
        return None

    @property
    def carried(self) -> int:
        """How many flows of a flow table the kernel carries."""
        return 0

    def counts(self) -> Mapping[str, int]:
        """Counters of the carrier as a whole, by the names of ``daemon.shared_memory.counters``."""
        return {}

    @abstractmethod
    def counters(self, backend: Backend) -> Mapping[str, int]:
        """The worker's counters of the flows to ``backend``, by the names of
        ``daemon.shared_memory.counters``; without those that the carrier does not count.
        """

    def switch(self, on: bool) -> None:
        """Carry flows in the kernel (``on``), or have the worker carry all of them. Carriers
        without this choice do nothing.
        """
        return

    @abstractmethod
    def sync(self, now: float) -> None:
        """Exchange changes with the kernel since the last call.

        Raises ``PlatformError`` if the kernel refuses a change; it is not tried again.
        """

"""``Carrier``: what carries the packets of a flow once its backend is decided.

A datapath decides about a flow and installs it in the carrier of its method: the worker's own
translation (``nat``), marks in conntrack (``offload``), leases in nft sets (``dsr``). The datapath
does not know how its carrier works, so another carrier is a module of its own and one line in the
method's ``build``.

Rules: a carrier makes system calls in ``sync`` alone, which the worker's tick calls, or where a
flow is installed or removed; it is never called for a packet of an established flow that passes
the worker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from paraglider.core.pool import Backend

#: what a method's datapath knows of a flow: ``core.flow.Flow``, or less where the kernel has it
F = TypeVar("F")


class Carrier(ABC, Generic[F]):
    """Carries flows between the decision about them and their end.

    A carrier that is asked about every flow of a flow table is set as the table's ``carrier``:
    the table then installs and removes its flows, also those that were restored from a journal,
    and asks ``last_seen`` before a flow expires or is evicted (``core.flow_table``).
    """

    @abstractmethod
    def install(self, flow: F) -> int:
        """Carry ``flow`` from its next packet on; the verdict for the packet that is handled."""

    @abstractmethod
    def remove(self, what: F | Backend) -> None:
        """Carry a flow, or all flows to a backend, no more: from the next ``sync`` on at the
        latest. A flow that is not carried is passed over.
        """

    @abstractmethod
    def last_seen(self, flow: F) -> float:
        """When the last packet of ``flow`` passed (monotonic seconds), as far as it is known."""

    @abstractmethod
    def counters(self, backend: Backend) -> Mapping[str, int]:
        """What the worker knows of the flows to ``backend``, by the names of its statistics
        (``daemon.processes.counters``); what the carrier does not count is left out.
        """

    @abstractmethod
    def sync(self, now: float) -> None:
        """Exchange with the kernel what has changed since the last call.

        Raises ``PlatformError`` where the kernel refuses; what was refused is not tried again.
        """

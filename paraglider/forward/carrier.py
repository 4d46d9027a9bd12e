"""``Carrier``: forwards the packets of a flow once its backend is decided.

A datapath decides about a flow and installs it in the carrier of its method: the worker's own
translation (``nat``), marks in conntrack (``offload``), leases in nft sets (``dsr``). The datapath
does not know how its carrier works, so another carrier is a module of its own and one line in the
method's ``build``.

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

    A carrier may be set as a flow table's ``carrier``: the table then installs and removes its
    flows, including those restored from a journal, and calls ``last_seen`` before a flow expires or
    is evicted (``core.flow_table``).
    """

    @abstractmethod
    def install(self, flow: F) -> int:
        """Carry ``flow`` from its next packet on; returns the verdict for the present packet."""

    @abstractmethod
    def remove(self, what: F | Backend) -> None:
        """Stop carrying a flow, or all flows to a backend, with the next ``sync`` at the latest. A
        flow that is not carried is ignored.
        """

    @abstractmethod
    def last_seen(self, flow: F) -> float:
        """When the last known packet of ``flow`` passed (monotonic seconds)."""

    @abstractmethod
    def counters(self, backend: Backend) -> Mapping[str, int]:
        """The worker's counters of the flows to ``backend``, by the names of
        ``daemon.shared_memory.counters``; without those that the carrier does not count.
        """

    @abstractmethod
    def sync(self, now: float) -> None:
        """Exchange changes with the kernel since the last call.

        Raises ``PlatformError`` if the kernel refuses a change; it is not tried again.
        """

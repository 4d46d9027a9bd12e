"""The carrier of ``forward: dsr``: leases in nft sets, by which the kernel marks packets itself.

The verdict of a flow that may have a lease has the lease bit in its mark, and our nft table puts
the flow's key into the set of its backend (``dsr.leases``). A lease expires within seconds, and the
next packet is queued. This carrier ends the leases of a backend that is lost, or one of whose flows
was ended by the operator.

Rules: every worker ends the leases of a backend. The workers share the sets, so all leases have
ended when the last worker has handled the change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paraglider.core.flow import Flow
from paraglider.core.flow_states import CLIENT_DONE
from paraglider.core.pool import Backend
from paraglider.core.verdict import MARK
from paraglider.errors import PlatformError
from paraglider.forward.dsr.leases import TABLE, lease_set
from paraglider.forward.dsr.marks import route_family
from paraglider.forward.one_sided import MarkCarrier
from paraglider.netfilter.nfnetlink import empty_set


def end_leases(mark: int) -> None:
    """End the leases of all flows to the backend with ``mark``: their packets are queued again.
    Does nothing if the kernel has no table of leases.
    """
    empty_set(route_family(mark), TABLE, lease_set(mark))


class LeaseCarrier(MarkCarrier):
    """Leases of the flows to the backends that have a mark in ``marks``.

    ``lease`` is the bit of a mark that requests a lease; ``end`` ends the leases with a mark.
    ``verdicts`` maps backends to the verdict without a lease; it is never replaced.
    """

    leases = True

    def __init__(
        self,
        marks: Mapping[Backend, int],
        lease: int,
        end: Callable[[int], object] = end_leases,
    ) -> None:
        self.verdicts: dict[Backend, int] = {}
        self._leased: dict[Backend, int] = {}
        self._lease = lease
        self._end = end
        self._marks: tuple[tuple[Backend, int], ...] = ()
        self._lost: frozenset[int] = frozenset()
        self._removed: set[int] = set()
        self.set_marks(marks)

    def set_marks(self, marks: Mapping[Backend, int]) -> None:
        """Use ``marks`` for new flows; other backends keep their mark while they have flows."""
        self._marks = tuple(marks.items())
        for backend in [b for b in self.verdicts if not b.has_flows and b not in marks]:
            del self.verdicts[backend], self._leased[backend]
        for backend, mark in marks.items():
            self.verdicts[backend] = MARK | mark << 8
            self._leased[backend] = MARK | (mark | self._lease) << 8

    def install(self, flow: Flow) -> int:
        """See ``Carrier``: the mark of the flow's backend with the lease bit. If BPF carries the
        flows, it has no lease bit after the client's FIN, since the next segments end the flow.
        """
        if flow.state == CLIENT_DONE and flow.translation.slot:
            return self.verdicts[flow.translation.backend]
        return self._leased[flow.translation.backend]

    def remove(self, what: Flow | Backend) -> None:
        """See ``Carrier``: all leases of the backend end, since a set has no cheap look-up."""
        verdict = self.verdicts.get(what.translation.backend if isinstance(what, Flow) else what)
        if verdict is not None:
            self._removed.add(verdict >> 8)

    def counters(self, backend: Backend) -> Mapping[str, int]:
        """See ``Carrier``: flows only; packets pass without the worker."""
        return {"flows": backend.flows, "inactive": backend.inactive}

    def sync(self, now: float) -> None:
        """See ``Carrier``: end the leases of backends that are lost, or were given to ``remove``,
        since the last call.
        """
        before = self._lost
        self._lost = frozenset(mark for backend, mark in self._marks if backend.datagrams_lost)
        due, self._removed = self._removed | (self._lost - before), set()
        refused = []
        for mark in sorted(due):
            try:
                self._end(mark)
            except OSError as error:
                refused.append(f"{mark:#x} ({error})")
        if refused:
            raise PlatformError(
                f"leases of mark {', '.join(refused)} cannot be ended",
                "they end by themselves within seconds",
            )

"""The carrier of ``forward: offload``: conntrack, by the mark of a flow's first packet.

The kernel translates the mark of the verdict into the backend (``netfilter.rules.nft``) and carries
the rest of the flow. A first packet can be repeated before the kernel has the flow (a repeated SYN,
the next datagram of a burst), so a decision is remembered for a while.

Connections that must end are removed from conntrack by the daemon, once for all workers
(``offload.reconcile``), and packets are counted by nft (``offload.counters``).

Rules: the cost does not depend on the number of remembered decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from paraglider.core.pool import Backend
from paraglider.core.verdict import MARK
from paraglider.forward.carrier import Carrier

#: seconds for which a decision is remembered at least; twice as long at most
REMEMBERED: Final = 15.0
#: decisions of one generation; with more the older generation is dropped sooner
MOST_REMEMBERED: Final = 1 << 16


class Decided(NamedTuple):
    """A flow whose backend was decided at ``seen`` (monotonic seconds); ``key`` has the source
    first, ``sequence`` is that of a SYN, ``MIDSTREAM`` of an adopted flow, 0 for other protocols.
    """

    protocol: int
    key: bytes
    backend: Backend
    sequence: int
    seen: float


class ConntrackCarrier(Carrier[Decided]):
    """The flows in conntrack, as far as one worker knows them; ``marks`` has the mark of each
    backend.

    ``live``, if set, gets the flows decided for each mark so far and returns the live ones
    (``forward.offload.connection_counts``). A backend's ``flows`` is that number plus the flows
    installed since the last ``sync``, so that a burst in between counts too.
    """

    def __init__(
        self,
        marks: Mapping[Backend, int],
        live: Callable[[Mapping[int, int]], Mapping[int, int]] | None = None,
        remembered: float = REMEMBERED,
        bound: int = MOST_REMEMBERED,
    ) -> None:
        self.live = live
        self._remembered = remembered
        self._bound = bound
        self._young: dict[tuple[int, bytes], Decided] = {}
        self._old: dict[tuple[int, bytes], Decided] = {}
        self._turn_at = 0.0
        self.set_marks(marks)

    def set_marks(self, marks: Mapping[Backend, int]) -> None:
        """Use ``marks``, which has all backends; decisions for others are dropped."""
        self.verdicts = {backend: MARK | mark << 8 for backend, mark in marks.items()}
        self._marks = tuple(marks.items())
        self._young = {which: made for which, made in self._young.items() if made.backend in marks}
        self._old = {which: made for which, made in self._old.items() if made.backend in marks}

    def find(self, protocol: int, key: bytes, now: float) -> Decided | None:
        """The remembered decision for a packet with ``key``."""
        if now >= self._turn_at or len(self._young) >= self._bound:
            self._turn(now)
        which = (protocol, key)
        return self._young.get(which) or self._old.get(which)

    def install(self, flow: Decided) -> int:
        """See ``Carrier``: the mark of the backend."""
        self._young[flow.protocol, flow.key] = flow
        flow.backend.flows += 1
        return self.verdicts[flow.backend]

    def remove(self, what: Decided | Backend) -> None:
        """See ``Carrier``: drops the decision, so the next first packet gets a new one."""
        for decided in (self._young, self._old):
            if isinstance(what, Backend):
                for which in [w for w, made in decided.items() if made.backend is what]:
                    del decided[which]
            else:
                decided.pop((what.protocol, what.key), None)

    def counters(self, backend: Backend) -> Mapping[str, int]:
        """See ``Carrier``: nothing; the kernel counts, for all workers in one place."""
        return {}

    def sync(self, now: float) -> None:
        """See ``Carrier``: drop old decisions and read the counts of live flows."""
        if now >= self._turn_at:
            self._turn(now)
        live: Mapping[int, int] = {}
        if self.live is not None:
            live = self.live({mark: backend.conns for backend, mark in self._marks})
        for backend, mark in self._marks:
            backend.flows = live.get(mark, 0)

    def __len__(self) -> int:
        """Decisions remembered now."""
        return len(self._young) + len(self._old)

    def _turn(self, now: float) -> None:
        """Begin a new generation; drop decisions that are older than two."""
        self._old = self._young if now < self._turn_at + self._remembered else {}
        self._young = {}
        self._turn_at = now + self._remembered

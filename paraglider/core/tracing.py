"""A balancer that records the reason for each decision, used only with `-D`.

Lives here: ``TracingBalancer``, ``Decision``.
Rules: the decisions are those of ``Balancer``. Reasons that are not read, such as those of flows
that were refused afterwards, are dropped once there are MOST of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paraglider.core.balancer import Balancer
from paraglider.core.pool import Backend, State
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies.base import NewFlow
from paraglider.core.translation import Translation

#: most stored decisions
MOST: Final = 1024


@dataclass(frozen=True, slots=True)
class Decision:
    """``backend`` of ``service`` for the flow with ``key`` (source first), and the reason."""

    service: str
    protocol: int
    key: bytes
    backend: Backend
    why: str


class TracingBalancer(Balancer):
    """Decides as ``Balancer``, and stores the reason until ``decision_on`` returns it."""

    def __init__(self, services: ServiceMap) -> None:
        super().__init__(services)
        self._reasons: dict[tuple[int, bytes], tuple[str, str]] = {}

    def choose(
        self, service: VirtualService, flow: NewFlow, taken: Callable[[Backend], bool]
    ) -> Backend | None:
        """See ``Balancer``."""
        kept = None
        if service.affinity is not None:
            kept = service.affinity.find(flow.client, flow.now)
        passed: list[str] = []

        def asked(backend: Backend) -> bool:
            cannot = taken(backend)
            if cannot and backend.name not in passed:
                passed.append(backend.name)
            return cannot

        backend = super().choose(service, flow, asked)
        if backend is not None:
            if len(self._reasons) >= MOST:
                self._reasons.clear()
            why = _words(service, kept, backend, passed)
            self._reasons[flow.protocol, flow.key] = (service.name, why)
        return backend

    def owner(
        self,
        flow: NewFlow,
        refused: tuple[Backend, ...] = (),
        service: VirtualService | None = None,
    ) -> Translation | None:
        """See ``Balancer``."""
        found = super().owner(flow, refused, service)
        if found is not None:
            self._note_adopted(flow.protocol, flow.key)
        return found

    def answering(
        self, protocol: int, reverse_key: bytes, guessed: Callable[[bytes], bool] | None = None
    ) -> Translation | None:
        """See ``Balancer``."""
        found = super().answering(protocol, reverse_key, guessed)
        if found is not None:
            self._note_adopted(protocol, found.forward_key(reverse_key))
        return found

    def _note_adopted(self, protocol: int, key: bytes) -> None:
        service = self.find(protocol, key)
        if service is not None:
            if len(self._reasons) >= MOST:
                self._reasons.clear()
            why = f"{service.strategy.name}, adopted in mid-stream"
            self._reasons[protocol, key] = (service.name, why)

    def decision_on(self, protocol: int, key: bytes, backend: Backend) -> Decision:
        """Return and delete the last decision about the flow, which got ``backend``; without one,
        the kernel has decided.
        """
        reason = self._reasons.pop((protocol, key), None)
        if reason is None:
            service = self.find(protocol, key)
            by = "by the kernel"
            reason = (
                ("", by) if service is None else (service.name, f"{service.strategy.name}, {by}")
            )
        return Decision(reason[0], protocol, key, backend, reason[1])


def _words(
    service: VirtualService, kept: Backend | None, backend: Backend, passed: list[str]
) -> str:
    if kept is backend:
        return "affinity: the client has it already"
    ready = len(service.pool.ready)
    name = service.strategy.name
    words = f"{name}, of {ready} ready"
    if backend.state is not State.READY:
        words = f"{name}, of {ready}, all of them down"
    if kept is not None and not kept.ready:
        words += f"; the client's, {kept.name}, takes no new flows"
    if passed:
        words += f"; passed over {', '.join(passed)}"
    return words

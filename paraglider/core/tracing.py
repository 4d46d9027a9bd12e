"""A balancer that can tell why it decided as it did, for `-D`; nobody else pays for it.

Lives here: ``TracingBalancer`` and what it tells, ``Decision``.
Rules: it decides nothing itself. What nobody asks for is forgotten: a flow that was refused after
all, a flood of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paraglider.core.balancer import Balancer
from paraglider.core.pool import Backend, State
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies.base import NewFlow

#: decisions that are remembered until somebody asks
MOST: Final = 1024


@dataclass(frozen=True, slots=True)
class Decision:
    """``backend`` of ``service`` for the flow with ``key`` (source first), and why in words."""

    service: str
    protocol: int
    key: bytes
    backend: Backend
    why: str


class TracingBalancer(Balancer):
    """Decides as any balancer does, and remembers why until ``decision_on`` asks."""

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

    def decision_on(self, protocol: int, key: bytes, backend: Backend) -> Decision:
        """The last decision about the flow, which got ``backend``; it is forgotten then."""
        service, why = self._reasons.pop((protocol, key), ("", ""))
        return Decision(service, protocol, key, backend, why)


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

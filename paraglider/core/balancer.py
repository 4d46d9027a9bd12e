"""The balancer: which backend a new flow gets. Service, affinity, strategy, in that order.

It decides and does not carry: what is then done to packets is another module's (``nat``), so that
the same decision serves every way of forwarding.
"""

from __future__ import annotations

from collections.abc import Callable

from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Backend
from paraglider.core.service import Service, ServiceMap
from paraglider.core.strategies.base import NewFlow
from paraglider.core.verdict import NO_BACKEND, REFUSED


class Balancer:
    """Decides for new flows over a set of services."""

    def __init__(self, services: ServiceMap) -> None:
        self.services = services

    def find(self, protocol: int, key: bytes) -> Service | None:
        """The service that a packet with this flow key (source first) is addressed to."""
        size = (len(key) - 4) // 2
        return self.services.find(protocol, key[size:-4], key[-2:])

    @staticmethod
    def refusal(service: Service, protocol: int) -> int:
        """The reason for which a new flow of ``service`` gets no backend when none is ready."""
        if service.pool.all_down == "reject" and protocol in (TCP, UDP):
            return REFUSED
        return NO_BACKEND  # an echo too: passed on, the host itself would answer for the service

    def choose(
        self, service: Service, flow: NewFlow, taken: Callable[[Backend], bool]
    ) -> Backend | None:
        """The backend of ``service`` for ``flow``, or None when none takes new flows.

        A client with affinity keeps its backend while that one is ready. A backend for which
        ``taken`` says that it cannot hold this flow (its keys are in use) is passed over, a kept
        one for the strategy's, the strategy's for the next in the order of the configuration; the
        last word is the caller's: the backend returned is taken when every ready one is.
        """
        ready = service.pool.ready
        if not ready:
            return None
        if service.affinity is not None:
            kept = service.affinity.find(flow.client, flow.now)
            if kept is not None and kept.ready and not taken(kept):
                return kept
        backend = service.strategy.pick(flow)
        if taken(backend):
            for other in ready:
                if not taken(other):
                    return other
        return backend

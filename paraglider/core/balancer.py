"""The balancer: chooses the backend of a new flow, by service, affinity and strategy in that order,
and finds that of a flow which is not known here (``adoption``).

It only decides: the datapath of each forward method handles the packets, so all methods share the
decision.
"""

from __future__ import annotations

from collections.abc import Callable

from paraglider.core.flow import TCP, UDP
from paraglider.core.pool import Backend
from paraglider.core.service import ServiceMap, VirtualService
from paraglider.core.strategies.base import NewFlow
from paraglider.core.translation import Translation
from paraglider.core.verdict import NO_BACKEND, REFUSED


class Balancer:
    """Chooses backends for new flows of a set of services."""

    def __init__(self, services: ServiceMap) -> None:
        self.services = services

    def find(self, protocol: int, key: bytes) -> VirtualService | None:
        """The service of a packet with this flow key (source first); None if there is none."""
        size = (len(key) - 4) // 2
        return self.services.find(protocol, key[size:-4], key[-2:])

    def owner(
        self,
        flow: NewFlow,
        refused: tuple[Backend, ...] = (),
        service: VirtualService | None = None,
    ) -> Translation | None:
        """The translation of ``flow``, which is not known here, to none of the backends that have
        ``refused`` it (``AdoptionTables.pick``); None if the flow is not to be adopted. ``service``
        is the flow's, if it was found before.
        """
        if service is None:
            service = self.find(flow.protocol, flow.key)
        if service is None or service.adoption is None:
            return None
        backend = service.adoption.pick(flow, refused)
        return None if backend is None else service.translations.get(backend)

    def answering(
        self, protocol: int, reverse_key: bytes, guessed: Callable[[bytes], bool] | None = None
    ) -> Translation | None:
        """The translation of the flow of a backend's packet with ``reverse_key``, if its address
        and port answer for one VIP only, of a service that adopts flows; else None.

        A packet that may answer for several VIPs, or be of a connection of the backend's own (all
        ports), answers for the one whose client's packets have begun the same flow: ``guessed``
        says so of their key.
        """
        size = (len(reverse_key) - 4) // 2
        source = reverse_key[:size], reverse_key[-4:-2]
        found = self.services.answering(protocol, *source)
        if found is not None or guessed is None:
            return found
        several = [
            each.translation
            for each in self.services.possible_answers(protocol, *source)
            if guessed(key := each.translation.forward_key(reverse_key))
            and self.find(protocol, key) is each.service
        ]
        return several[0] if len(several) == 1 else None

    @staticmethod
    def refusal(service: VirtualService, protocol: int) -> int:
        """The reason code for a new flow of ``service`` when no backend is ready."""
        if service.pool.all_down == "reject" and protocol in (TCP, UDP):
            return REFUSED
        return NO_BACKEND  # echoes too: if they were accepted, the host itself would answer

    def choose(
        self, service: VirtualService, flow: NewFlow, taken: Callable[[Backend], bool]
    ) -> Backend | None:
        """The backend of ``service`` for ``flow``, or None when none takes new flows.

        A client with affinity keeps its backend while that is ready. A backend for which ``taken``
        is true cannot hold this flow (its keys are in use): then the strategy picks instead of the
        affinity, and the next free backend in the order of the configuration replaces the
        strategy's. If all ready backends are taken, a taken one is returned: the caller checks.
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

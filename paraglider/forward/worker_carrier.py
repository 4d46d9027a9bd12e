"""The carrier of ``forward: nat``: the worker itself, by the translation of each flow.

A flow is carried while it is in the flow table, so there is nothing to install. Flows to a lost
backend are refused by their translation (``core.translation``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from paraglider.core.flow import Flow
from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.core.translation import Translation
from paraglider.core.verdict import REWRITTEN
from paraglider.forward.carrier import Carrier


class WorkerCarrier(Carrier[Flow]):
    """Translation by the worker; it counts packets and bytes in each translation."""

    def __init__(self) -> None:
        self._translations: dict[Backend, Translation] = {}

    def set_services(self, services: Iterable[VirtualService]) -> None:
        """Set all services that the worker translates for."""
        self._translations = {
            backend: translation
            for service in services
            for backend, translation in service.translations.items()
        }

    def install(self, flow: Flow) -> int:
        """See ``Carrier``: the packet is translated."""
        return REWRITTEN

    def remove(self, what: Flow | Backend) -> None:
        """See ``Carrier``: a flow that is not in the flow table is not carried."""

    def counters(self, backend: Backend) -> Mapping[str, int]:
        """See ``Carrier``: flows, refused connections, packets and bytes each way."""
        translation = self._translations[backend]
        return {
            "flows": backend.flows,
            "inactive": backend.inactive,
            "refused": backend.refused,
            "packets_out": translation.packets_out,
            "bytes_out": translation.bytes_out,
            "packets_back": translation.packets_back,
            "bytes_back": translation.bytes_back,
        }

    def sync(self, now: float) -> None:
        """See ``Carrier``: the kernel has no state of these flows."""

"""Lists and ends connections of a proxy, for `paraglider flows` and `kill`.

Rules: as ``forward.flows``; ending a connection resets both ends.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from paraglider.core.flow import PROTOCOL_NAMES
from paraglider.core.flow_states import ESTABLISHED, STATE_NAMES
from paraglider.forward.flows import Match
from paraglider.forward.proxy.attempt import Attempt
from paraglider.forward.proxy.relay import Relay


class ProxyView:
    """The connections in ``relays``, each with the attempt that opened it."""

    def __init__(self, relays: Mapping[Relay, Attempt]) -> None:
        self._relays = relays

    def walk(self, match: Match) -> Iterator[Relay | None]:
        """For every connection at the start of the walk: itself if ``match``
        selects it, else None.
        """
        for relay in tuple(self._relays):
            attempt = self._relays.get(relay)
            meant = (
                attempt is not None
                and attempt.backend is not None
                and match.service in (None, attempt.front.service.name)
                and match.matches_backend(attempt.backend)
                and match.matches_client(attempt.flow.client)
            )
            yield relay if meant else None

    def describe(self, relay: Relay, now: float) -> dict[str, Any]:
        """Describe ``relay`` as data for JSON; empty if it has ended."""
        attempt = self._relays.get(relay)
        if attempt is None or attempt.backend is None:
            return {}
        flow = attempt.flow
        return {
            "service": attempt.front.service.name,
            "protocol": PROTOCOL_NAMES[flow.protocol],
            "client": str(ipaddress.ip_address(flow.client)),
            "client_port": flow.client_port,
            "vip": str(ipaddress.ip_address(flow.vip)),
            "port": flow.port,
            "backend": attempt.backend.name,
            "state": STATE_NAMES[ESTABLISHED],
            "idle": round(max(now - relay.last_active, 0.0), 1),
        }

    def forget(self, relay: Relay, now: float) -> bool:
        """Reset ``relay`` at both ends; False if it has ended already."""
        if relay.closed:
            return False
        relay.reset()
        return True

"""With `-D`: a log line per new flow, with its backend and the reason for it.

Lives here: ``FlowLog``.
Rules: addresses, ports and the decision, never packet content. At most MOST lines a second per
process, so that a flood does not fill the disk; the next line has the number of those left out.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Any, Final

from paraglider.core.flow import PROTOCOL_NAMES
from paraglider.core.tracing import Decision

#: lines a second
MOST: Final = 100


class FlowLog:
    """Called with every decision; ``now`` is a clock in seconds."""

    def __init__(self, logger: Any, now: Callable[[], float] = time.monotonic) -> None:
        self._log = logger
        self._now = now
        self._second = -1
        self._lines = 0
        self._held_back = 0

    def __call__(self, decision: Decision) -> None:
        """Log ``decision``, or count it."""
        second = int(self._now())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= MOST:
            self._held_back += 1
            return
        self._lines += 1
        key = decision.key
        size = (len(key) - 4) // 2
        words: dict[str, object] = {
            "service": decision.service,
            "protocol": PROTOCOL_NAMES[decision.protocol],
            "client": str(ipaddress.ip_address(key[:size])),
            "client_port": int.from_bytes(key[-4:-2], "big"),
            "vip": str(ipaddress.ip_address(key[size:-4])),
            "port": int.from_bytes(key[-2:], "big"),
            "backend": decision.backend.name,
            "why": decision.why,
        }
        if self._held_back:
            words["held_back"], self._held_back = self._held_back, 0
        self._log.debug("new flow", **words)

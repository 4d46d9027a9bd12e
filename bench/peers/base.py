"""The base class of peers.

Rules: a peer sets up the balancer's namespace of its stage and starts its programs there; it undoes
nothing, since the stage is removed with everything in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from bench.network import BACKENDS, VIP, Stage


class Peer(ABC):
    """One way from client to backend.

    ``name`` is what ``--only`` takes, ``title`` what tables say. ``address`` is what the client
    calls, ``backends`` how many of them answer there. ``direct``: they answer past the balancer,
    by a leg in the client's network. ``far``: a router is between the balancer and them. ``cannot``
    names the loads that this peer cannot carry, with the reason; ``quick`` tells whether
    ``--quick`` has it.
    """

    name: str
    title: str
    address: str = VIP
    backends: int = len(BACKENDS)
    direct: bool = False
    far: bool = False
    quick: bool = True
    cannot: ClassVar[dict[str, str]] = {}

    def missing(self) -> str | None:
        """Why this peer is not available here; None if it is."""
        return None

    @abstractmethod
    def start(self, stage: Stage) -> None:
        """Set up and start; raises ``ParagliderError`` when that fails."""

    def carrier(self) -> str:
        """What has carried the flows' packets since ``start``; empty if the peer itself did."""
        return ""

    def trouble(self) -> list[str]:
        """Errors that the peer has logged since ``start``."""
        return []

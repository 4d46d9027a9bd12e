"""A proxy worker's counters of a backend, beside the connections, which ``Backend`` counts.

``Backend.flows`` are live connections and attempts, ``Backend.conns`` all since the start.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Tally:
    """One backend's counters since the worker's start.

    ``sent`` are bytes of clients to the backend, ``received`` bytes of the backend to clients.
    ``refused`` are connections that the backend or the network refused; ``timeouts`` connections
    without an answer; ``retried`` those of both kinds that were then tried at another backend.
    ``idle`` are connections ended by the idle timeout, ``resets`` connections that one of the two
    ends reset.
    """

    sent: int = 0
    received: int = 0
    refused: int = 0
    timeouts: int = 0
    retried: int = 0
    idle: int = 0
    resets: int = 0

    def counts(self) -> dict[str, int]:
        """All of them, by name."""
        return asdict(self)

"""What a strategy is, and what it is told of a new flow.

Rules: ``prepare`` may be slow, ``pick`` is on the way of every new flow and must cost the same
however many flows there are. ``pick`` is only called while at least one backend is ready.
"""

from __future__ import annotations

from typing import Protocol

from paraglider.core.pool import Backend


class NewFlow:
    """The first packet of a flow, parsed: addresses are packed bytes, ports are integers.

    ``key`` is source address, destination address, source port, destination port as they stand
    in the packet (12 bytes in IPv4, 36 in IPv6; for ICMP echo the identifier stands for both
    ports).
    """

    __slots__ = ("key", "now", "protocol")

    def __init__(self, protocol: int, key: bytes, now: float) -> None:
        self.protocol = protocol
        self.key = key
        self.now = now

    @property
    def client(self) -> bytes:
        """Packed address of the client."""
        return self.key[: (len(self.key) - 4) // 2]

    @property
    def vip(self) -> bytes:
        """Packed address the client called."""
        return self.key[(len(self.key) - 4) // 2 : -4]

    @property
    def client_port(self) -> int:
        """The client's port, or the identifier of an ICMP echo."""
        return int.from_bytes(self.key[-4:-2], "big")

    @property
    def port(self) -> int:
        """The port the client called, or the identifier of an ICMP echo."""
        return int.from_bytes(self.key[-2:], "big")


class Strategy(Protocol):
    """Picks a backend for a new flow; one instance a service and worker."""

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Take notice of the backends that take new flows (weight over 0), and their weights.

        Called before the first ``pick`` and after every change of a state or a weight.
        """

    def pick(self, flow: NewFlow) -> Backend:
        """The backend for ``flow``: one of those last given to ``prepare``."""

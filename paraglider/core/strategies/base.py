"""What a strategy is, what it is told when it is made, and what it is told of a new flow.

Rules: ``prepare`` may be slow, ``pick`` is on the way of every new flow and must cost the same
however many flows there are. ``pick`` is only called while at least one backend is ready.

A strategy of the user's own is a class with these two methods; docs/policies.md shows one.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Protocol

from paraglider.core.flow import PROTOCOL_NAMES
from paraglider.core.pool import Backend

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class NewFlow:
    """The first packet of a flow, parsed: addresses are packed bytes, ports are integers.

    ``key`` is source address, destination address, source port, destination port as they stand
    in the packet (12 bytes in IPv4, 36 in IPv6; for ICMP echo the identifier stands for both
    ports). ``protocol`` is the IP protocol number, ``now`` monotonic seconds.
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

    @property
    def client_address(self) -> IPAddress:
        """The client's address as an object of ``ipaddress``; slower than ``client``."""
        return ipaddress.ip_address(self.client)

    @property
    def vip_address(self) -> IPAddress:
        """The address the client called as an object of ``ipaddress``; slower than ``vip``."""
        return ipaddress.ip_address(self.vip)

    @property
    def protocol_name(self) -> str:
        """The protocol's name: "tcp", "udp", "icmp" or "icmp6"."""
        return PROTOCOL_NAMES[self.protocol]


class Strategy(Protocol):
    """Picks a backend for a new flow; one instance a service and worker."""

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Take notice of the backends that take new flows (weight over 0), and their weights.

        Called before the first ``pick`` and after every change of a state or a weight.
        """

    def pick(self, flow: NewFlow) -> Backend:
        """The backend for ``flow``: one of those last given to ``prepare``."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a strategy is made for.

    ``service`` is the name of its service; ``worker`` (0, 1, …) lets the workers' turns start
    apart; ``seed`` makes hashes differ from those of an equal service elsewhere, or agree.
    """

    service: str = ""
    worker: int = 0
    seed: int = 0


class UserClass(Protocol):
    """The constructor of a user's own strategy: the fields of ``Context`` as keywords."""

    def __call__(self, *, service: str, worker: int, seed: int) -> Strategy:
        """An instance for one service in one worker."""

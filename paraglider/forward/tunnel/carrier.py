"""The worker as the carrier of ``forward: tunnel``: it sends packets in an outer header.

A verdict has the number of the backend's endpoint in its mark. Our filter rules drop the original
packet, after the rules that limit new flows and record known clients. The kernel is queried for the
route to a backend and the MTU of the path, at most once in ``PATH_SECONDS`` for each backend, so
routes and MTUs may change at any time.

Rules: only ``output`` makes system calls.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from itertools import count
from typing import Final

from paraglider.core.encapsulation import Outer
from paraglider.core.flow import Flow
from paraglider.core.pool import Backend
from paraglider.core.verdict import MARK
from paraglider.forward.datapath import PacketOutput
from paraglider.forward.one_sided import MarkCarrier
from paraglider.netfilter.rules.marks import LEASE, TUNNEL_BASE

#: seconds for which the kernel's answer about a path is used
PATH_SECONDS: Final = 1.0


class Endpoint:
    """The end of a tunnel: the address of a backend, and the UDP ``port`` of GUE, 0 for IP in IP.

    ``outer`` encapsulates packets to the backend, None without a route; ``room`` is the MTU inside
    the tunnel. After ``refresh`` both are less than ``PATH_SECONDS`` old. ``packets`` and ``bytes``
    count what was sent, without the outer headers.
    """

    __slots__ = ("_packed", "_until", "address", "bytes", "outer", "packets", "port", "room")

    def __init__(self, address: bytes, port: int) -> None:
        self._packed = address
        self.address = str(ipaddress.ip_address(address))
        self.port = port
        self.outer: Outer | None = None
        self.room = 0
        self.packets = self.bytes = 0
        self._until = float("-inf")

    def refresh(self, output: PacketOutput, now: float) -> None:
        """Query the path if the last answer is too old."""
        if now < self._until:
            return
        self._until = now + PATH_SECONDS
        path = output.path(self.address)
        if path is None:
            self.outer = None
            return
        mtu, source = path
        self.outer = Outer(source, self._packed, self.port)
        self.room = min(mtu, 65535) - self.outer.overhead

    def forget(self) -> None:
        """Query the path again for the next packet: the kernel has refused one as too long."""
        self._until = float("-inf")


class TunnelCarrier(MarkCarrier):
    """The endpoints of the backends, by the number in a verdict's mark (``endpoints``)."""

    def __init__(self) -> None:
        self.verdicts: dict[Backend, int] = {}
        self.endpoints: dict[int, Endpoint] = {}
        self._proven: dict[Backend, int] = {}
        self._numbers: dict[Backend, int] = {}

    def set_ports(self, ports: Mapping[Backend, int]) -> None:
        """Set the backends, and for each the UDP port of GUE, 0 for IP in IP. A backend that is not
        in ``ports`` keeps its endpoint while it has flows.
        """
        for backend in [b for b in self.verdicts if not b.has_flows and b not in ports]:
            del self.endpoints[self._numbers.pop(backend)]
            del self.verdicts[backend], self._proven[backend]
        free = (number for number in count() if number not in self.endpoints)
        for backend, port in ports.items():
            number = self._numbers.get(backend)
            if number is None:
                number = self._numbers[backend] = next(free)
                self.endpoints[number] = Endpoint(backend.address, port)
                self.verdicts[backend] = MARK | (TUNNEL_BASE | number) << 8
                self._proven[backend] = MARK | (TUNNEL_BASE | LEASE | number) << 8
            elif self.endpoints[number].port != port:
                self.endpoints[number].port = port
                self.endpoints[number].forget()

    def install(self, flow: Flow) -> int:
        """See ``Carrier``: the verdict that also says that the client is proven."""
        return self._proven[flow.translation.backend]

    def remove(self, what: Flow | Backend) -> None:
        """See ``Carrier``: a flow that is not in the flow table is not carried."""

    def counters(self, backend: Backend) -> Mapping[str, int]:
        """See ``Carrier``: flows, and packets and bytes to the backend."""
        endpoint = self.endpoints[self._numbers[backend]]
        return {
            "flows": backend.flows,
            "inactive": backend.inactive,
            "packets_out": endpoint.packets,
            "bytes_out": endpoint.bytes,
        }

    def sync(self, now: float) -> None:
        """See ``Carrier``: the kernel has no state of these flows."""

"""A translation: what ``forward: nat`` does to every packet between one service and one backend.

The source and destination addresses are bytes 12-16 and 16-20 of an IPv4 packet, 8-24 and 24-40 of
an IPv6 packet; the ports are the first bytes of the transport header. Towards the backend the
destination is replaced, towards the client the source. The replacement and the checksum deltas
depend only on the service and the backend, so one object serves all flows between them.
Rules: sums are stored negated, ready to be added to a checksum field.
"""

from __future__ import annotations

from hashlib import blake2b

from paraglider.core.affinity import Affinity
from paraglider.core.checksum import delta
from paraglider.core.pool import Backend


class Translation:
    """Addresses, ports and checksum deltas between one service and one backend, both ways.

    ``mapped`` is true if the port changes, from ``vip_port`` to ``backend_port`` (2 bytes each).
    ``address_out``/``transport_out`` are added, modulo 65,535, to the IPv4 header checksum and to
    the transport checksum of packets towards the backend; ``…_back`` likewise towards the client.
    ``packets_*``/``bytes_*`` count IP packets and their bytes. ``identity`` (8 bytes) is the same
    in every process for the same VIP, backend and mapped port; the port of a flow tells which of
    the VIP's services it belongs to. With ``unchanged`` (dsr) the backend's address is the VIP and
    every delta is 0 (``routed``). ``long_verdict`` is the verdict by which the kernel translates a
    packet that is too long to be copied whole, 0 if it cannot. ``special`` is true if more than an
    address must be replaced: the port is mapped, or the backend is lost for all flows (``lost``) or
    for UDP and echo (``datagrams_lost``). ``udp_reply`` is the timeout of an answered UDP flow in
    seconds, 0 for the default. ``slot`` is its index in the maps of a carrier in the kernel, 0 for
    none; ``aliased`` is true if the carrier cannot derive the key of a flow from a reply,
    ``decided`` if the kernel decides about packets of flows that the carrier does not have. Only
    the carrier sets these three. ``outer_port`` is the UDP port of the outer header in which
    packets are sent to the backend, 0 for IP in IP, -1 for no outer header; its method sets it.
    """

    __slots__ = (
        "address_back",
        "address_out",
        "affinity",
        "aliased",
        "backend",
        "backend_address",
        "backend_port",
        "bytes_back",
        "bytes_out",
        "datagrams_lost",
        "decided",
        "direct",
        "identity",
        "long_verdict",
        "lost",
        "mapped",
        "outer_port",
        "packets_back",
        "packets_out",
        "routed",
        "slot",
        "special",
        "transport_back",
        "transport_out",
        "udp_reply",
        "vip",
        "vip_port",
    )

    def __init__(
        self,
        vip: bytes,
        vip_port: int,
        backend: Backend,
        *,
        direct: bool = False,
        unchanged: bool = False,
        affinity: Affinity | None = None,
        udp_reply: float = 0.0,
    ) -> None:
        self.vip = vip
        self.backend = backend
        self.routed = unchanged
        self.backend_address = vip if unchanged else backend.address
        self.mapped = bool(backend.port) and backend.port != vip_port
        self.special = self.mapped
        self.lost = self.datagrams_lost = False
        self.long_verdict = 0
        self.vip_port = vip_port.to_bytes(2, "big")
        self.backend_port = backend.port.to_bytes(2, "big")
        self.direct = direct
        self.udp_reply = udp_reply
        self.affinity = affinity
        self.slot = 0
        self.outer_port = -1
        self.aliased = self.decided = False
        address = delta(vip, self.backend_address)
        port = delta(self.vip_port, self.backend_port) if self.mapped else 0
        self.address_out = (-address) % 65535
        self.transport_out = (-address - port) % 65535
        self.address_back = address
        self.transport_back = (address + port) % 65535
        self.packets_out = self.bytes_out = self.packets_back = self.bytes_back = 0
        ports = self.vip_port + self.backend_port if self.mapped else b""
        self.identity = blake2b(vip + backend.address + ports, digest_size=8).digest()

    def equals(self, other: Translation) -> bool:
        """Whether ``other`` translates packets between the same service and backend alike."""
        return (
            self.identity == other.identity
            and self.backend is other.backend
            and self.affinity is other.affinity
            and self.direct == other.direct
            and self.backend_address == other.backend_address
        )

    def set_lost(self, lost: bool, datagrams_lost: bool) -> None:
        """Set whether all flows to the backend are lost, and whether those of UDP and echo are."""
        self.lost = lost
        self.datagrams_lost = datagrams_lost or lost
        self.special = self.datagrams_lost or self.mapped

    def reverse_key(self, key: bytes) -> bytes:
        """The key of the backend's packets of the flow with ``key``."""
        size = len(self.vip)
        port = self.backend_port if self.mapped else key[-2:]
        return self.backend_address + key[:size] + port + key[-4:-2]

    def forward_key(self, reverse_key: bytes) -> bytes:
        """The key of the client's packets of the flow whose backend's packets have
        ``reverse_key``.
        """
        size = len(self.vip)
        port = self.vip_port if self.mapped else reverse_key[-4:-2]
        return reverse_key[size : 2 * size] + self.vip + reverse_key[-2:] + port

"""A translation: what ``forward: nat`` does to every packet between one service and one backend.

Of an IPv4 packet bytes 12-16 are the source and 16-20 the destination address; of an IPv6 packet
bytes 8-24 and 24-40; the ports open the transport header. Towards the backend the destination is
replaced, on the way back the source; the slice and what it adds to the checksums depend on the
service and the backend only, so one object serves all flows between the two and a flow needs no
copy of its own.
Rules: sums are kept negated, ready to be added to a checksum field.
"""

from __future__ import annotations

from hashlib import blake2b

from paraglider.core.affinity import Affinity
from paraglider.core.checksum import delta
from paraglider.core.pool import Backend


class Translation:
    """Addresses, ports and checksum deltas between one service and one backend, both ways.

    ``mapped`` tells whether the port changes; ``vip_port``/``backend_port`` are its two spellings
    (2 bytes). ``address_out``/``transport_out`` are added, modulo 65,535, to the IPv4 header
    checksum and to the transport checksum of packets towards the backend; ``…_back`` likewise
    towards the client. ``packets_*``/``bytes_*`` count IP packets and their bytes. ``identity``
    (8 bytes) is the same in every process that has the same VIP, backend and mapped port; which of
    the services of a VIP a flow is of, its port says. Where
    packets reach the backend ``unchanged`` (dsr) it has the VIP's address, and every delta is 0.
    ``long_verdict`` is the verdict by which the kernel translates a packet that is too long to come
    whole, 0 where it cannot. ``special`` tells that there is more to do than to replace an
    address: the port is mapped, or the backend is ``lost``, for all flows or for
    ``datagrams_lost``, those of UDP and echo.
    ``udp_reply`` is for how many seconds after its last packet an answered UDP flow is kept, 0 for
    as long as any.
    """

    __slots__ = (
        "address_back",
        "address_out",
        "affinity",
        "backend",
        "backend_address",
        "backend_port",
        "bytes_back",
        "bytes_out",
        "datagrams_lost",
        "direct",
        "identity",
        "long_verdict",
        "lost",
        "mapped",
        "packets_back",
        "packets_out",
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
        """Whether ``other`` does the same with packets between the same two."""
        return (
            self.identity == other.identity
            and self.backend is other.backend
            and self.affinity is other.affinity
            and self.direct == other.direct
            and self.backend_address == other.backend_address
        )

    def lose(self, lost: bool, datagrams_lost: bool) -> None:
        """The flows to the backend are over, or those of UDP and echo alone; or they are not."""
        self.lost = lost
        self.datagrams_lost = datagrams_lost or lost
        self.special = self.datagrams_lost or self.mapped

    def reverse_key(self, key: bytes) -> bytes:
        """The key that the backend's answers to a flow with ``key`` carry."""
        size = len(self.vip)
        port = self.backend_port if self.mapped else key[-2:]
        return self.backend_address + key[:size] + port + key[-4:-2]

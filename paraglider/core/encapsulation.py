"""Encapsulation of a client's packet to a backend: an outer IP header, and UDP and GUE with it.

    ipip   IPv4 in IPv4 (RFC 2003), IPv6 in IPv6 (RFC 2473): 20 or 40 bytes
    gue    generic UDP encapsulation, version 0 without options (draft-ietf-intarea-gue-09; Linux,
           net/ipv4/fou_core.c: gue_udp_recv): 12 bytes more

The outer header has the packet's DSCP and ECN (RFC 6040, normal mode; RFC 2983, uniform model) and
a TTL of its own. DF is set, so routers report a smaller MTU. The source port of GUE and the
IPv6 flow label are a hash of the flow, by which routers spread flows over equal paths (RFC 6438).
The UDP checksum is 0: the packet inside has one over its own addresses (RFC 6935, RFC 6936).
``bpf/tunnel.h`` writes the same bytes, and a test compares the two.
Rules: pure. The length of a result is that of the packet and ``overhead``, at most 65,535.
"""

from __future__ import annotations

import struct
from typing import Final

from paraglider.core.checksum import ones_sum
from paraglider.core.flow import TCP, UDP
from paraglider.core.siphash import siphash13

#: protocol numbers of an IP packet inside another (IANA)
IPIP: Final = 4
IPV6: Final = 41

#: bytes of the outer headers by family, without and with GUE
OVERHEAD: Final = {4: (20, 32), 6: (40, 52)}

_HOPS: Final = 64  # RFC 1700's default
_DONT_FRAGMENT: Final = 0x4000
_FIRST_PORT: Final = 0xC000  # the dynamic ports (RFC 6335)
_HEAD4: Final = struct.Struct("!BBHHHBBH4s4s")
_HEAD6: Final = struct.Struct("!IHBB16s16s")
_UDP_GUE: Final = struct.Struct("!HHHHBBH")


class Outer:
    """Encapsulates packets of one family from ``source`` to ``destination`` (4 or 16 bytes each),
    by GUE to the UDP ``port``, or without UDP if that is 0.

    ``overhead`` is by how many bytes a packet becomes longer.
    """

    __slots__ = ("_destination", "_four", "_inner", "_port", "_source", "_sum", "overhead")

    def __init__(self, source: bytes, destination: bytes, port: int = 0) -> None:
        self._source = source
        self._destination = destination
        self._port = port
        self._four = len(destination) == 4
        self._inner = IPIP if self._four else IPV6
        self.overhead = OVERHEAD[4 if self._four else 6][bool(port)]
        protocol = UDP if port else self._inner
        fixed = _HEAD4.pack(0x45, 0, 0, 0, _DONT_FRAGMENT, _HOPS, protocol, 0, b"", b"")
        self._sum = ones_sum(fixed[:12] + source + destination)

    def wrap(self, packet: bytes | bytearray, entropy: int) -> bytes:
        """``packet``, a whole one, in outer headers; ``entropy`` is its ``flow_hash``."""
        length = len(packet) + self.overhead
        protocol, middle = self._inner, b""
        if self._port:
            protocol = UDP
            below = length - (20 if self._four else 40)
            source = _FIRST_PORT | entropy & 0x3FFF
            middle = _UDP_GUE.pack(source, self._port, below, 0, 0, self._inner, 0)
        if self._four:
            service = packet[1]
            total = (self._sum + service + length) % 65535
            head = _HEAD4.pack(
                *(0x45, service, length, 0, _DONT_FRAGMENT, _HOPS, protocol),
                *((65535 - total) % 65535, self._source, self._destination),
            )
        else:
            first = 0x60000000 | (packet[0] & 15) << 24 | (packet[1] & 0xF0) << 16
            label = entropy & 0xFFFFF or 1  # 0 means no label
            head = _HEAD6.pack(
                *(first | label, length - 40, protocol, _HOPS, self._source, self._destination)
            )
        return head + middle + bytes(packet)


def flow_hash(packet: bytes | bytearray) -> int:
    """32 bits that are equal for all packets of a flow, of ``packet``, a valid one: of addresses
    and ports, or of addresses where the ports are not at their usual place. They are those of
    SipHash-1-3 with the key 0.
    """
    if packet[0] >> 4 == 4:
        plain = packet[0] == 0x45 and not packet[6] & 0x3F | packet[7]
        ends = packet[12:24] if plain and packet[9] in (TCP, UDP) else packet[12:20]
    else:
        ends = packet[8:44] if packet[6] in (TCP, UDP) else packet[8:40]
    return siphash13(0, 0, bytes(ends)) & 0xFFFFFFFF


def count_down(packet: bytearray) -> bool:
    """Decrement the TTL or hop limit of ``packet``, as a router does; returns False, and leaves it
    unchanged, if it must not be forwarded (RFC 2003 §3.1).
    """
    if packet[0] >> 4 == 6:
        if packet[7] <= 1:
            return False
        packet[7] -= 1
        return True
    if packet[8] <= 1:
        return False
    packet[8] -= 1
    value = ((packet[10] << 8 | packet[11]) + 0x100) % 65535  # RFC 1624: the sum is 0x100 less
    packet[10:12] = value.to_bytes(2, "big")
    return True

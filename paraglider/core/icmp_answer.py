"""ICMP errors of our own to the sender of a packet that cannot be forwarded.

Layouts: RFC 792, RFC 1191 (next-hop MTU), RFC 4443. As much of the packet is quoted as the error
may carry (RFC 1812 §4.3.2.3: 576 bytes; RFC 4443: 1,280).
Rules: pure. The source of an error is the packet's destination, a VIP, so that the client's
firewall relates it to the flow. No error is about an ICMP error, or to a sender that is no single
host (RFC 1122 §3.2.2, RFC 4443 §2.4).
"""

from __future__ import annotations

import struct
from typing import Final

from paraglider.core.checksum import internet_checksum
from paraglider.core.flow import ICMP, ICMP6

_LONGEST4, _LONGEST6 = 576, 1280
_HOPS: Final = 64
_ERRORS4: Final = frozenset((3, 4, 5, 11, 12))


def too_big(packet: bytes | bytearray, mtu: int) -> bytes | None:
    """Fragmentation Needed, or Packet Too Big, about ``packet``, which is longer than ``mtu``; None
    if there must be no error about it.
    """
    if packet[0] >> 4 == 4:
        return _error4(packet, 3, 4, mtu)
    return _error6(packet, 2, mtu)


def time_exceeded(packet: bytes | bytearray) -> bytes | None:
    """Time Exceeded about ``packet``, whose TTL or hop limit has ended; None as in ``too_big``."""
    if packet[0] >> 4 == 4:
        return _error4(packet, 11, 0, 0)
    return _error6(packet, 3, 0)


def _error4(packet: bytes | bytearray, kind: int, code: int, word: int) -> bytes | None:
    size = (packet[0] & 15) << 2
    if packet[9] == ICMP and packet[size] in _ERRORS4:
        return None
    if packet[12] in (0, 127) or packet[12] >= 224:
        return None
    body = bytearray(struct.pack("!BBHI", kind, code, 0, word))
    body += packet[: _LONGEST4 - 28]
    body[2:4] = internet_checksum(body).to_bytes(2, "big")
    head = bytearray(struct.pack("!BBHHHBB", 0x45, 0xC0, 20 + len(body), 0, 0, _HOPS, ICMP))
    head += b"\0\0" + packet[16:20] + packet[12:16]
    head[10:12] = internet_checksum(head).to_bytes(2, "big")
    return bytes(head + body)


def _error6(packet: bytes | bytearray, kind: int, word: int) -> bytes | None:
    if packet[6] == ICMP6 and packet[40] < 128:
        return None
    if packet[8] == 0xFF or not any(packet[8:24]):
        return None
    body = bytearray(struct.pack("!BBHI", kind, 0, 0, word))
    body += packet[: _LONGEST6 - 48]
    ends = bytes(packet[24:40] + packet[8:24])
    pseudo = ends + struct.pack("!II", len(body), ICMP6)
    body[2:4] = internet_checksum(pseudo + body).to_bytes(2, "big")
    return struct.pack("!IHBB", 0x60000000, len(body), ICMP6, _HOPS) + ends + bytes(body)

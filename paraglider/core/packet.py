"""Parses headers: finds the transport header, the flow key, and malformed packets.

Layouts: IPv4 RFC 791, IPv6 RFC 8200, TCP RFC 9293, UDP RFC 768, ICMP RFC 792, ICMPv6 RFC 4443.
A flow key is source address, destination address, source port, destination port, as in the packet:
12 bytes for IPv4, 36 for IPv6. For ICMP echo the identifier is used as both ports.
Rules: no function raises for any bytes; the result is a ``Parsed`` whose ``reason`` is -1 for a
valid packet, else one of ``verdict``'s reasons. Common packets (no options, no extension headers)
are parsed by the datapaths themselves with a few index operations.
"""

from __future__ import annotations

from typing import Final

from paraglider.core import verdict
from paraglider.core.flow import ICMP, ICMP6, TCP, UDP

# TCP flags, byte 13 of the header (RFC 9293 §3.1)
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

#: longest packet in a netlink attribute (nlattr.nla_len has 16 bits, the header 4 bytes)
LONGEST: Final = 65531
#: bytes that a worker reads of a longer packet if the kernel rewrites it (``forward.nat.long``):
#: from here on that costs less than copying the packet twice
COPY: Final = 4096
#: shortest IPv4 or IPv6 packet whose length field is 0: a BIG TCP segment, which is too long for
#: the field (Linux, include/net/ip.h: iph_set_totlen)
_BIG: Final = 65536

FLOW: Final = 0  # TCP, UDP
ECHO_REQUEST: Final = 1
ECHO_REPLY: Final = 2
ICMP_ERROR: Final = 3

#: ICMP: destination unreachable, time exceeded, parameter problem (RFC 792)
_ERRORS4: Final = frozenset((3, 11, 12))
#: ICMPv6: destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443)
_ERRORS6: Final = frozenset((1, 2, 3, 4))

#: minimum length of a transport header
_SHORTEST: Final = {TCP: 20, UDP: 8, ICMP: 8, ICMP6: 8}

_HOP_BY_HOP, _ROUTING, _FRAGMENT = 0, 43, 44
#: extension headers with the common layout: next header, length in 8 octets less the first
_EXTENSIONS: Final = frozenset((_HOP_BY_HOP, _ROUTING, 60, 135, 139, 140))
MAX_EXTENSIONS: Final = 8
#: hop-by-hop header of 8 bytes that begins with the option jumbo payload, of 4 bytes
_JUMBO: Final = b"\x00\xc2\x04"


class Parsed:
    """The result of parsing. Offsets are absolute in the buffer.

    ``transport`` is where the transport header begins, ``end`` where the IP packet ends,
    ``protocol`` the transport protocol, ``kind`` one of FLOW, ECHO_REQUEST, ECHO_REPLY,
    ICMP_ERROR, ``key`` the flow key (empty for ICMP_ERROR).
    """

    __slots__ = ("end", "key", "kind", "protocol", "reason", "transport")

    def __init__(self) -> None:
        self.reason = -1
        self.transport = 0
        self.end = 0
        self.protocol = 0
        self.kind = FLOW
        self.key = b""


def parse(buf: bytearray, offset: int, length: int, whole: bool = True) -> Parsed:
    """Parse the packet in ``buf[offset:offset + length]``.

    ``whole`` is False for the packet inside an ICMP error and for a head copied for marking: such a
    packet may be truncated after the first 8 bytes of its transport header, and may be a first
    fragment. Such a head may also be BIG TCP, whose length is missing or in a jumbo payload option
    (RFC 2675). An atomic IPv6 fragment (RFC 6946) is not treated as a fragment.
    """
    parsed = Parsed()
    if length < 20:
        parsed.reason = verdict.SHORT
        return parsed
    version = buf[offset] >> 4
    if version == 4:
        parsed.reason = _walk4(buf, offset, length, whole, parsed)
        addresses = slice(offset + 12, offset + 20)
    elif version == 6:
        parsed.reason = _walk6(buf, offset, length, whole, parsed)
        addresses = slice(offset + 8, offset + 40)
    else:
        parsed.reason = verdict.BAD_VERSION
    if parsed.reason >= 0:
        return parsed
    return _transport(buf, addresses, offset + length, whole, parsed)


def _walk4(buf: bytearray, offset: int, length: int, whole: bool, parsed: Parsed) -> int:
    header = (buf[offset] & 15) << 2
    total = buf[offset + 2] << 8 | buf[offset + 3]
    if not total and length >= COPY and not whole:
        total = _BIG
    if header < 20 or header > length:
        return verdict.BAD_HEADER_LENGTH
    if total < header:
        return verdict.BAD_TOTAL_LENGTH
    if total > length and whole:
        return verdict.TRUNCATED
    if (buf[offset + 6] & (0x3F if whole else 0x1F)) | buf[offset + 7]:
        return verdict.FRAGMENT
    parsed.protocol = buf[offset + 9]
    parsed.transport = offset + header
    parsed.end = offset + total
    return -1


def _walk6(buf: bytearray, offset: int, length: int, whole: bool, parsed: Parsed) -> int:
    if length < 40:
        return verdict.SHORT
    payload = buf[offset + 4] << 8 | buf[offset + 5]
    if payload == 0 and not whole:
        payload = _big6(buf, offset, length)
    if payload == 0:
        return verdict.BAD_TOTAL_LENGTH
    if payload + 40 > length and whole:
        return verdict.TRUNCATED
    parsed.end = offset + 40 + payload
    limit = min(parsed.end, offset + length)
    at, following = offset + 40, buf[offset + 6]
    for _ in range(MAX_EXTENSIONS + 1):  # once more for what follows the last
        if following in _EXTENSIONS:
            if at + 8 > limit:
                return verdict.BAD_EXTENSION
            if following == _ROUTING and buf[at + 3]:
                return verdict.SOURCE_ROUTED
            size = (buf[at + 1] + 1) << 3
        elif following == _FRAGMENT:
            if at + 8 > limit:
                return verdict.BAD_EXTENSION
            if buf[at + 2] | (buf[at + 3] & (0xF9 if whole else 0xF8)):
                return verdict.FRAGMENT
            size = 8
        else:
            parsed.protocol, parsed.transport = following, at
            return -1 if at <= limit else verdict.BAD_EXTENSION
        following = buf[at]
        at += size
    return verdict.BAD_EXTENSION


def _big6(buf: bytearray, offset: int, length: int) -> int:
    """The payload length of an IPv6 packet whose length field is 0; 0 if it is malformed.

    Linux writes the jumbo payload option alone into a hop-by-hop header, or omits it.
    """
    at = offset + 40
    if buf[offset + 6] == TCP:
        return _BIG if length >= COPY else 0
    if buf[offset + 6] != _HOP_BY_HOP or length < 48 or bytes(buf[at + 1 : at + 4]) != _JUMBO:
        return 0
    payload = int.from_bytes(buf[at + 4 : at + 8], "big")
    return payload if payload >= _BIG else 0


def _transport(buf: bytearray, addresses: slice, limit: int, whole: bool, parsed: Parsed) -> Parsed:
    protocol, at = parsed.protocol, parsed.transport
    shortest = _SHORTEST.get(protocol)
    if shortest is None:
        parsed.reason = verdict.OTHER_PROTOCOL
        return parsed
    if at + (shortest if whole else 8) > min(limit, parsed.end):
        parsed.reason = verdict.SHORT_TRANSPORT
        return parsed
    if protocol in (TCP, UDP):
        parsed.key = bytes(buf[addresses]) + bytes(buf[at : at + 4])
        return parsed
    kind = buf[at]
    family6 = addresses.stop - addresses.start == 32
    if family6 != (protocol == ICMP6):
        parsed.reason = verdict.OTHER_PROTOCOL
    elif kind in (_ERRORS6 if family6 else _ERRORS4):
        parsed.kind = ICMP_ERROR
    elif kind == (128 if family6 else 8) or kind == (129 if family6 else 0):
        parsed.kind = ECHO_REQUEST if kind in (8, 128) else ECHO_REPLY
        identifier = bytes(buf[at + 4 : at + 6])
        parsed.key = bytes(buf[addresses]) + identifier + identifier
    else:
        parsed.reason = verdict.OTHER_ICMP
    return parsed


def reverse(key: bytes) -> bytes:
    """The flow key of the opposite direction."""
    size = (len(key) - 4) // 2
    return key[size:-4] + key[:size] + key[-2:] + key[-4:-2]

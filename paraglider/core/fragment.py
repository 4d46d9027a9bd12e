"""Splits packets into fragments: IPv4 (RFC 791 §3.2), IPv6 (RFC 8200 §4.5).

Rules: pure; the arguments are valid whole packets (``packet.parse``). A fragment is at most ``mtu``
bytes long; its data, except in the last one, is a multiple of 8 bytes.
"""

from __future__ import annotations

from typing import Final

from paraglider.core.checksum import internet_checksum

_MORE4: Final = 0x2000
_FRAGMENT6: Final = 44
#: IPv6 extension headers that every fragment repeats: hop-by-hop options and routing, with the
#: destination options before it
_REPEATED6: Final = frozenset((0, 43))
_OPTIONS6: Final = 60
_END, _NOTHING, _COPIED = 0, 1, 0x80  # IPv4 options


def fragments4(packet: bytes | bytearray, mtu: int) -> list[bytearray]:
    """The fragments of an IPv4 ``packet`` without DF; ``mtu`` is at least 68.

    Options that only the first fragment has become no-operations in the others (Linux,
    net/ipv4/ip_options.c: ip_options_fragment).
    """
    size = (packet[0] & 15) << 2
    head = bytearray(packet[:size])
    data = packet[size:]
    step = (mtu - size) & ~7
    found = []
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        more = _MORE4 if at + step < len(data) else (packet[6] & 0x20) << 8
        head[2:4] = (size + len(piece)).to_bytes(2, "big")
        head[6:8] = (more | at >> 3).to_bytes(2, "big")
        head[10:12] = b"\0\0"
        head[10:12] = internet_checksum(head).to_bytes(2, "big")
        found.append(head + piece)
        if not at:
            _drop_options(head, size)
    return found


def _drop_options(head: bytearray, size: int) -> None:
    at = 20
    while at < size and head[at] != _END:
        length = 1 if head[at] == _NOTHING else head[at + 1] if at + 1 < size else 0
        if length < 1 or at + length > size:
            return  # malformed: kept as they are
        if not head[at] & _COPIED:
            head[at : at + length] = bytes([_NOTHING]) * length
        at += length


def fragments6(packet: bytes | bytearray, mtu: int, identification: int) -> list[bytearray]:
    """The fragments of an IPv6 ``packet`` with the 32-bit ``identification``; empty if its
    headers alone do not fit ``mtu``.
    """
    place, size = 6, 40  # of the next-header field, and of the headers that are repeated
    following, at = packet[6], 40
    while following in _REPEATED6 or following == _OPTIONS6:
        if following in _REPEATED6:
            place, size = at, at + ((packet[at + 1] + 1) << 3)
        following, at = packet[at], at + ((packet[at + 1] + 1) << 3)
    head = bytearray(packet[:size])
    kind = head[place]
    head[place] = _FRAGMENT6
    data = packet[size:]
    step = (mtu - size - 8) & ~7
    found: list[bytearray] = []
    if step < 8:
        return found
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        more = start + step < len(data)
        head[4:6] = (size - 40 + 8 + len(piece)).to_bytes(2, "big")
        extension = bytes([kind, 0]) + (start | more).to_bytes(2, "big")
        found.append(head + extension + identification.to_bytes(4, "big") + piece)
    return found

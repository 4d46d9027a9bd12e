"""Packets of a capture file: pcap and pcapng, as tcpdump and Wireshark write them.

Lives here: ``ip_packets``.
Formats: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html and -pcapng-02; link types
of https://www.tcpdump.org/linktypes.html.
Rules: reads packet by packet with one in memory, so a capture may have any size. A capture that
ends within a packet (one in progress) is read up to there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from paraglider.errors import OperatorError

#: longest packet, in bytes: tcpdump's limit
LONGEST: Final = 262_144

_PCAP: Final = {
    bytes.fromhex("d4c3b2a1"): "<",
    bytes.fromhex("4d3cb2a1"): "<",  # nanoseconds
    bytes.fromhex("a1b2c3d4"): ">",
    bytes.fromhex("a1b23c4d"): ">",
}
_SECTION: Final = bytes.fromhex("0a0d0d0a")
_BYTE_ORDER: Final = {bytes.fromhex("4d3c2b1a"): "<", bytes.fromhex("1a2b3c4d"): ">"}
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6

_IPV4, _IPV6 = 0x0800, 0x86DD
_VLANS: Final = (0x8100, 0x88A8, 0x9100)
_ETHERNET: Final = 1
#: link type → offset of the protocol in a frame (None: absent), and offset of IP
_LINKS: Final[dict[int, tuple[int | None, int]]] = {
    0: (None, 4),  # BSD loopback
    12: (None, 0),  # raw IP
    14: (None, 0),
    101: (None, 0),
    108: (None, 4),
    113: (14, 16),  # Linux "any"
    228: (None, 0),
    229: (None, 0),
    276: (0, 20),  # Linux "any", version 2
}


def ip_packets(stream: BinaryIO, name: str) -> Iterator[bytes | None]:
    """The IP packet in each frame of a capture; None for a frame without one.

    ``name`` is used in messages. Raises ``OperatorError`` when the file is damaged or not a
    capture.
    """
    magic = stream.read(4)
    if magic in _PCAP:
        return _pcap(stream, name, _PCAP[magic])
    if magic == _SECTION:
        return _pcapng(stream, name)
    remedy = "name a file that `tcpdump -w` or Wireshark wrote"
    raise OperatorError(f"{name} is not a packet capture", remedy)


def _pcap(stream: BinaryIO, name: str, order: str) -> Iterator[bytes | None]:
    header = stream.read(20)
    if len(header) < 20:
        return
    link = int(struct.unpack(f"{order}16xI", header)[0]) & 0xFFFF
    _known(link, name)
    number = 0
    while len(head := stream.read(16)) == 16:
        number += 1
        length = struct.unpack(f"{order}8xI4x", head)[0]
        if length > LONGEST:
            raise _damaged(name, number)
        frame = stream.read(length)
        if len(frame) < length:
            return
        yield _ip(link, frame)


def _pcapng(stream: BinaryIO, name: str) -> Iterator[bytes | None]:
    kind, order, number = _SECTION, "", 0
    links: list[int] = []
    while len(kind) == 4:
        number += 1
        size = stream.read(4)
        if kind == _SECTION:
            mark = stream.read(4)
            if len(mark) < 4:
                return
            if mark not in _BYTE_ORDER:
                raise _damaged(name, number)
            order, links = _BYTE_ORDER[mark], []
        if len(size) < 4:
            return
        length = struct.unpack(f"{order}I", size)[0] - (16 if kind == _SECTION else 12)
        if length < 0 or length % 4:
            raise _damaged(name, number)
        block = struct.unpack(f"{order}I", kind)[0]
        if kind == _SECTION or block not in (_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET):
            if not _skipped(stream, length):
                return
        else:
            if length > LONGEST + 65_536:  # a packet and its options
                raise _damaged(name, number)
            body = stream.read(length)
            if len(body) < length:
                return
            if block == _INTERFACE:
                links.append(_link(body, order, name, number))
            else:
                yield _packet(block, body, order, links, _damaged(name, number))
        stream.read(4)  # the length again
        kind = stream.read(4)


def _skipped(stream: BinaryIO, length: int) -> bool:
    """Skip ``length`` bytes; False if there are fewer."""
    while length:
        read = len(stream.read(min(length, 65_536)))
        if not read:
            return False
        length -= read
    return True


def _link(body: bytes, order: str, name: str, number: int) -> int:
    if len(body) < 8:
        raise _damaged(name, number)
    link = int(struct.unpack_from(f"{order}H", body)[0])
    _known(link, name)
    return link


def _packet(
    block: int, body: bytes, order: str, links: list[int], damaged: OperatorError
) -> bytes | None:
    if block == _SIMPLE_PACKET:
        interface, at = 0, 4
        length = len(body) - 4  # padded; the IP header has the length
    elif len(body) < 20:
        raise damaged
    else:
        at = 20
        form = f"{order}I8xI" if block == _PACKET else f"{order}H10xI"
        interface, length = struct.unpack_from(form, body)
    if interface >= len(links) or not 0 <= length <= len(body) - at:
        raise damaged
    return _ip(links[interface], body[at : at + length])


def _known(link: int, name: str) -> None:
    if link != _ETHERNET and link not in _LINKS:
        remedy = "capture on an interface with Ethernet or IP frames"
        raise OperatorError(f"{name}: link type {link} is not supported", remedy)


def _damaged(name: str, number: int) -> OperatorError:
    return OperatorError(f"{name} is damaged at block {number}", "capture again")


def _ip(link: int, frame: bytes) -> bytes | None:
    """The IP packet in ``frame``, padding of the link included."""
    protocol_at, at = (12, 14) if link == _ETHERNET else _LINKS[link]
    if protocol_at is not None:
        protocol = int.from_bytes(frame[protocol_at : protocol_at + 2], "big")
        while link == _ETHERNET and protocol in _VLANS and at + 4 <= len(frame):
            protocol = int.from_bytes(frame[at + 2 : at + 4], "big")
            at += 4
        if protocol not in (_IPV4, _IPV6):
            return None
    packet = frame[at:]
    return packet if packet and packet[0] >> 4 in (4, 6) else None

"""Netlink messages of nfnetlink_queue, as bytes (linux/netfilter/nfnetlink_queue.h).

A message is nlmsghdr (length u32, type u16, flags u16, sequence u32, port u32; host order),
nfgenmsg (family u8, version u8, resource id u16 in network order), then attributes: length u16
and type u16 in host order, payload, padding to 4 bytes; integers inside are in network order.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from paraglider.netfilter.nfnetlink import attribute

NFNL_SUBSYS_QUEUE: Final = 3
NFQNL_MSG_PACKET: Final = 0
NFQNL_MSG_VERDICT: Final = 1
NFQNL_MSG_CONFIG: Final = 2
NLMSG_ERROR: Final = 2

NFQA_VERDICT_HDR: Final = 2
NFQA_MARK: Final = 3
NFQA_PAYLOAD: Final = 10
NFQA_SKB_INFO: Final = 14

NFQA_CFG_CMD: Final = 1
NFQA_CFG_PARAMS: Final = 2
NFQA_CFG_QUEUE_MAXLEN: Final = 3
NFQA_CFG_MASK: Final = 4
NFQA_CFG_FLAGS: Final = 5
NFQNL_CFG_CMD_BIND: Final = 1
NFQNL_COPY_PACKET: Final = 2
NFQA_CFG_F_FAIL_OPEN: Final = 1
NFQA_CFG_F_GSO: Final = 4

NF_DROP: Final = 0
NF_ACCEPT: Final = 1

NLM_F_REQUEST: Final = 1
NLM_F_ACK: Final = 4

#: bytes of nlmsghdr and nfgenmsg: attributes begin behind them
HEAD: Final = 20
#: type of a message that brings a packet, as it stands at bytes 4-6
PACKET_TYPE: Final = struct.pack("=H", NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET)
ERROR_TYPE: Final = struct.pack("=H", NLMSG_ERROR)
#: header of NFQA_SKB_INFO; where the kernel sends it, it stands right before NFQA_PAYLOAD
INFO_HEAD: Final = struct.pack("=HH", 8, NFQA_SKB_INFO)

read_attribute: Final = struct.Struct("=HH").unpack_from


def message(kind: int, queue: int, attributes: bytes, flags: int = NLM_F_REQUEST) -> bytes:
    """A complete nfnetlink_queue message about ``queue``."""
    body = struct.pack("=BBH", 0, 0, socket.htons(queue)) + attributes
    header = struct.pack("=IHHII", 16 + len(body), NFNL_SUBSYS_QUEUE << 8 | kind, flags, 0, 0)
    return header + body


def settings(copy: int, flags: int) -> bytes:
    """Attributes of a configuration message: copy ``copy`` bytes of each packet; exactly these
    NFQA_CFG_F_ ``flags``.
    """
    known = NFQA_CFG_F_FAIL_OPEN | NFQA_CFG_F_GSO
    attributes = attribute(NFQA_CFG_PARAMS, struct.pack("!IB", copy, NFQNL_COPY_PACKET))
    attributes += attribute(NFQA_CFG_FLAGS, struct.pack("!I", flags))
    return attributes + attribute(NFQA_CFG_MASK, struct.pack("!I", known))


def configure(queue: int, copy: int, flags: int) -> bytes:
    """The message that changes the settings of a ``queue`` that this socket has bound."""
    return message(NFQNL_MSG_CONFIG, queue, settings(copy, flags))


def bind(queue: int, length: int, copy: int, flags: int) -> bytes:
    """The message that binds and configures ``queue``, with room for ``length`` packets.

    The kernel answers EPERM or EBUSY when the queue has a reader. Both steps are one message:
    otherwise packets could arrive without their payload in between.
    """
    attributes = attribute(NFQA_CFG_CMD, struct.pack("!BxH", NFQNL_CFG_CMD_BIND, 0))
    attributes += attribute(NFQA_CFG_QUEUE_MAXLEN, struct.pack("!I", length))
    attributes += settings(copy, flags)
    return message(NFQNL_MSG_CONFIG, queue, attributes, NLM_F_REQUEST | NLM_F_ACK)


def answer(data: bytes) -> int:
    """The errno that an NLMSG_ERROR message carries, 0 for an acknowledgement; -1 for others."""
    if len(data) < 20 or data[4:6] != ERROR_TYPE:
        return -1
    (number,) = struct.unpack_from("=i", data, 16)
    return -int(number)


#: bytes of a verdict message before the packet: nlmsghdr 16, nfgenmsg 4, NFQA_VERDICT_HDR 12,
#: header of NFQA_PAYLOAD 4. A packet message has at least as many before its payload.
VERDICT_HEAD: Final = 36

#: writes a verdict's head: length, the queue's constant part, packet id, the payload
#: attribute's length, its type
write_verdict: Final = struct.Struct("=I24s4sHH").pack_into


def verdict_constant(queue: int, verdict: int) -> bytes:
    """Bytes 4 to 28 of a verdict message: type, flags, sequence, port, nfgenmsg, and of
    NFQA_VERDICT_HDR the header and the verdict.
    """
    body = attribute(NFQA_VERDICT_HDR, struct.pack("!II", verdict, 0))
    return message(NFQNL_MSG_VERDICT, queue, body)[4:28]


def bare_verdict(queue: int, verdict: int, packet_id: bytes, mark: int | None) -> bytes:
    """A verdict that leaves the packet unchanged and sets its mark unless ``mark`` is None."""
    body = attribute(NFQA_VERDICT_HDR, struct.pack("!I", verdict) + packet_id)
    if mark is not None:
        body += attribute(NFQA_MARK, struct.pack("!I", mark))
    return message(NFQNL_MSG_VERDICT, queue, body)


def payload_at(buf: bytearray, base: int, size: int) -> int:
    """The offset from ``base`` of the payload in the packet message ``buf[base:base + size]``;
    ``size`` when there is no payload.
    """
    at = HEAD
    while at + 4 <= size:
        length, kind = read_attribute(buf, base + at)
        if kind == NFQA_PAYLOAD:
            return at + 4
        at += max((length + 3) & ~3, 4)
    return size

"""Netlink messages of nfnetlink_queue, as bytes (linux/netfilter/nfnetlink_queue.h).

A message is nlmsghdr (length u32, type u16, flags u16, sequence u32, port u32; host order),
nfgenmsg (family u8, version u8, resource id u16 in network order), then attributes: length u16
and type u16 in host order, payload, padding to 4 bytes; integers inside are in network order.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

NETLINK_NETFILTER: Final = 12
NFNL_SUBSYS_QUEUE: Final = 3
NFQNL_MSG_CONFIG: Final = 2
NFQA_CFG_PARAMS: Final = 2
NFQNL_COPY_PACKET: Final = 2
NLM_F_REQUEST: Final = 1


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute with its padding."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def message(kind: int, queue: int, attributes: bytes, flags: int = NLM_F_REQUEST) -> bytes:
    """A whole nfnetlink_queue message about ``queue``."""
    body = struct.pack("=BBH", 0, 0, socket.htons(queue)) + attributes
    header = struct.pack("=IHHII", 16 + len(body), NFNL_SUBSYS_QUEUE << 8 | kind, flags, 0, 0)
    return header + body


def copy_packet(queue: int, length: int) -> bytes:
    """Asks the kernel to copy up to ``length`` bytes of each packet of ``queue``."""
    params = attribute(NFQA_CFG_PARAMS, struct.pack("!IB", length, NFQNL_COPY_PACKET))
    return message(NFQNL_MSG_CONFIG, queue, params)

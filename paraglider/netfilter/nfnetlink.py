"""Netfilter requests over a netlink socket, for processes that may not run programs.

Lives here: the messages, requests and their answers, the counters of our tables, and the deletion
of leases. A message is nlmsghdr, nfgenmsg (family, version, resource) and attributes; integers
inside are in network order (linux/netfilter/nfnetlink.h).
Rules: needs CAP_NET_ADMIN only; raises ``OSError`` when the kernel refuses a request.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Final, NamedTuple

from paraglider.netfilter.rules.nft import COUNTED, GONE, TABLE, UNANSWERED

NETLINK_NETFILTER: Final = 12
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLA_TYPE_MASK: Final = 0x3FFF

_NFTABLES: Final = 10  # NFNL_SUBSYS_NFTABLES
_GETTABLE: Final = 1  # NFT_MSG_GETTABLE
_TABLE_NAME: Final = 1  # NFTA_TABLE_NAME
_GETOBJ: Final = 19  # NFT_MSG_GETOBJ (linux/netfilter/nf_tables.h)
_OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA = 1, 2, 3, 4
_DELSETELEM: Final = 14  # NFT_MSG_DELSETELEM: without elements, all of a set
_SET_TABLE, _SET_NAME = 1, 2
_BATCH_BEGIN: Final = 0x10  # NFNL_MSG_BATCH_BEGIN
_BATCH_END: Final = 0x11
_OBJECT_COUNTER: Final = 1
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}

_SOL_NETLINK, _GET_STRICT_CHK = 270, 12  # linux/socket.h, linux/netlink.h

_HEAD: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
#: requests that are sent at once by ``send_requests``
BATCH: Final = 32
_SECONDS: Final = 5  # timeout; the kernel normally answers at once


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute with its padding."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def message(subsystem: int, kind: int, family: int, attributes: bytes, flags: int) -> bytes:
    """A complete request; ``family`` is an AF_ number, or 0 for all."""
    body = struct.pack("=BBH", family, 0, 0) + attributes
    return _HEAD.pack(16 + len(body), subsystem << 8 | kind, NLM_F_REQUEST | flags, 0, 0) + body


def send_request(
    request: bytes, protocol: int = NETLINK_NETFILTER, *, strict: bool = False
) -> Iterator[bytes]:
    """Send ``request`` and yield its answers, each a complete message. ``protocol`` is netlink's;
    ``strict`` makes the kernel check all fields of a dump request, if it supports that.

    Raises ``OSError`` with the kernel's errno.
    """
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)) as sock:
        sock.bind((0, 0))
        sock.settimeout(_SECONDS)
        if strict:
            with suppress(OSError):
                sock.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        sock.send(request)
        many = bool(struct.unpack_from("=H", request, 6)[0] & NLM_F_DUMP)
        while True:
            data = sock.recv(1 << 17)
            for one in split(data):
                (kind,) = struct.unpack_from("=H", one, 4)
                if kind == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", one, 16)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                if kind == NLMSG_DONE:
                    return
                yield one
            if not many:
                return


def send_requests(requests: Sequence[bytes]) -> None:
    """Send ``requests``, which must all ask for an acknowledgement (``NLM_F_ACK``).

    ENOENT is ignored. Raises ``OSError`` with the kernel's errno of the first request that was
    refused; later ones of its BATCH have been sent too.
    """
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)) as sock:
        sock.bind((0, 0))
        sock.settimeout(_SECONDS)
        for first in range(0, len(requests), BATCH):
            batch = requests[first : first + BATCH]
            sock.send(b"".join(batch))
            left = len(batch)
            while left > 0:
                for one in split(sock.recv(1 << 17)):
                    left -= 1
                    number = -struct.unpack_from("=i", one, 16)[0]
                    if number not in (0, errno.ENOENT):
                        raise OSError(number, os.strerror(number))


def split(data: bytes) -> Iterator[bytes]:
    """The messages in one datagram."""
    at = 0
    while at + 16 <= len(data):
        (size,) = struct.unpack_from("=I", data, at)
        if not 16 <= size <= len(data) - at:
            return
        yield data[at : at + size]
        at += (size + 3) & ~3


def attributes(data: bytes, at: int = 20) -> Iterator[tuple[int, bytes]]:
    """Type and payload of the attributes from ``at`` on."""
    while at + 4 <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if not 4 <= size <= len(data) - at:
            return
        yield kind & NLA_TYPE_MASK, data[at + 4 : at + size]
        at += (size + 3) & ~3


def has_table(family: int, name: str) -> bool:
    """Whether the kernel has the nft table ``name`` of ``family`` (4 or 6)."""
    wanted = attribute(_TABLE_NAME, name.encode() + b"\0")
    try:
        return bool(list(send_request(message(_NFTABLES, _GETTABLE, _FAMILY[family], wanted, 0))))
    except OSError:  # ENOENT, or a kernel without nf_tables
        return False


def table_counters(family: int) -> dict[str, int] | None:
    """The first-packet counters of our table of ``family`` (4 or 6), by name.

    None when the table or the counters do not exist.
    """
    return named_counters(family, TABLE, (UNANSWERED, GONE))


def named_counters(family: int, table: str, names: Iterable[str]) -> dict[str, int] | None:
    """Packets that the counters ``names`` of ``table`` of ``family`` (4 or 6) have counted.

    None when there is no such table, or one of the counters is not in it.
    """
    counters = {}
    for name in names:
        wanted = attribute(_OBJ_TABLE, table.encode() + b"\0")
        wanted += attribute(_OBJ_NAME, name.encode() + b"\0")
        wanted += attribute(_OBJ_TYPE, struct.pack("!I", _OBJECT_COUNTER))
        try:
            answers = list(send_request(message(_NFTABLES, _GETOBJ, _FAMILY[family], wanted, 0)))
        except FileNotFoundError:  # ENOENT
            return None
        counters[name] = sum(
            _count(dict(attributes(answer)).get(_OBJ_DATA, b"")).packets for answer in answers
        )
    return counters


class CounterValue(NamedTuple):
    """The value of one nftables counter."""

    packets: int
    bytes: int


def carried_counters(family: int) -> dict[int, dict[str, CounterValue]]:
    """The counters of our table of ``family`` for each backend, by its mark and by the counter's
    kind (``COUNTED``); empty when the table does not exist.
    """
    wanted = attribute(_OBJ_TABLE, TABLE.encode() + b"\0")
    wanted += attribute(_OBJ_TYPE, struct.pack("!I", _OBJECT_COUNTER))
    found: dict[int, dict[str, CounterValue]] = {}
    for answer in send_request(message(_NFTABLES, _GETOBJ, _FAMILY[family], wanted, NLM_F_DUMP)):
        parts = dict(attributes(answer))
        what, _, mark = parts.get(_OBJ_NAME, b"").rstrip(b"\0").decode().rpartition("-")
        if what in COUNTED:
            found.setdefault(int(mark, 16), {})[what] = _count(parts.get(_OBJ_DATA, b""))
    return found


def empty_set(family: int, table: str, name: str) -> None:
    """Remove all elements of the set ``name`` of ``table`` of ``family`` (4 or 6) in one
    transaction (linux/netfilter/nfnetlink.h: batches); does nothing if there is no such set.
    """
    wanted = attribute(_SET_TABLE, table.encode() + b"\0")
    wanted += attribute(_SET_NAME, name.encode() + b"\0")
    begin, end = (_batch_end(kind) for kind in (_BATCH_BEGIN, _BATCH_END))
    try:
        request = message(_NFTABLES, _DELSETELEM, _FAMILY[family], wanted, NLM_F_ACK)
        list(send_request(begin + request + end))
    except FileNotFoundError:  # ENOENT
        return


def _batch_end(kind: int) -> bytes:
    body = struct.pack("!BBH", 0, 0, _NFTABLES)
    return _HEAD.pack(16 + len(body), kind, NLM_F_REQUEST, 0, 0) + body


def _count(data: bytes) -> CounterValue:
    """The value of the counter whose attributes are ``data``."""
    inner = dict(attributes(data, 0))
    both = (inner.get(kind, b"") for kind in (_COUNTER_PACKETS, _COUNTER_BYTES))
    return CounterValue(*(int.from_bytes(value, "big") for value in both))

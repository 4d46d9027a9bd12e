"""The kernel's connections by mark: a dump, an event socket, and how full the table is.

Lives here: ctnetlink's messages (linux/netfilter/nfnetlink_conntrack.h), with the attributes that
are needed: the connection's id, its mark, TCP's state.
Rules: connections without one of our marks are skipped. A TCP connection in TIME_WAIT or CLOSE is
closed, although the kernel keeps its entry for a while. The kernel sends the destroy event of a
connection only if nf_conntrack_events was on when it began, so the set-up turns that on. A classic
BPF filter (linux/filter.h) drops the events between begin and close.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from paraglider.errors import PlatformError
from paraglider.netfilter.nfnetlink import (
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    attribute,
    attributes,
    message,
    send_request,
)
from paraglider.netfilter.rules.marks import BASE, MASK

PROC: Final = Path("/proc")

CTNETLINK: Final = 1  # NFNL_SUBSYS_CTNETLINK
CT_NEW, CT_GET, CT_DELETE = 0, 1, 2  # IPCTNL_MSG_
CTA_MARK, CTA_ID, CTA_MARK_MASK = 8, 12, 21
# Of a TCP connection: its protocol's part, TCP's part of that, the state (enum tcp_conntrack).
_CTA_PROTOINFO, _CTA_PROTOINFO_TCP, _CTA_PROTOINFO_TCP_STATE = 4, 1, 1
#: states of TCP in which a connection is over: TIME_WAIT and CLOSE
CLOSED: Final = frozenset((7, 8))
_GROUPS: Final = (1, 2, 3)  # NFNLGRP_CONNTRACK_NEW, …_UPDATE, …_DESTROY
_NLM_F_CREATE: Final = 0x400  # set for a connection that begins, not for one that changes
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_SO_RCVBUFFORCE: Final = 33
_SO_ATTACH_FILTER: Final = 26
_SKF_AD_OFF: Final = -0x1000
_NEW: Final = CTNETLINK << 8 | CT_NEW
_DELETE: Final = CTNETLINK << 8 | CT_DELETE
_RECEIVE_BUFFER: Final = 64 << 20
_LONGEST: Final = 1 << 13  # one event is some 300 bytes


Turn = Literal["began", "closed", "ended", "forgotten"]
"""began: it is live. closed: closed, the kernel keeps the entry for a while. ended: its entry was
deleted while live. forgotten: the entry of a closed one was deleted."""


class ConntrackEvent(NamedTuple):
    """An event of one of our connections."""

    turn: Turn
    identity: int
    mark: int


def event(data: bytes) -> ConntrackEvent | None:
    """The event in one message; None for other connections and for changes in between."""
    if len(data) < 20:
        return None
    kind, flags = struct.unpack_from("=HH", data, 4)
    if kind not in (_NEW, _DELETE):
        return None
    identity, mark, closed = _parse(data)
    if mark & MASK != BASE:
        return None
    if kind == _NEW and flags & _NLM_F_CREATE:
        return ConntrackEvent("began", identity, mark)
    if kind == _NEW:
        return ConntrackEvent("closed", identity, mark) if closed else None
    return ConntrackEvent("forgotten" if closed else "ended", identity, mark)


def _parse(data: bytes) -> tuple[int, int, bool]:
    """The id and the mark of a connection, and whether it is closed."""
    found = dict(attributes(data))
    mark, identity = (int.from_bytes(found.get(n, b""), "big") for n in (CTA_MARK, CTA_ID))
    return identity, mark, tcp_state(found) in CLOSED


def tcp_state(found: Mapping[int, bytes]) -> int:
    """conntrack's state (enum tcp_conntrack, 1 is SYN_SENT) of the TCP connection with these
    attributes; 0 for another protocol's.
    """
    inner = dict(attributes(found.get(_CTA_PROTOINFO, b""), 0))
    tcp = dict(attributes(inner.get(_CTA_PROTOINFO_TCP, b""), 0))
    return int.from_bytes(tcp.get(_CTA_PROTOINFO_TCP_STATE, b""), "big")


def dump() -> Iterator[ConntrackEvent]:
    """Every live connection with one of our marks, as a ``began`` event; raises ``OSError``."""
    return (found for found in dump_all() if found.turn == "began")


def dump_all() -> Iterator[ConntrackEvent]:
    """As ``dump``, with the closed connections as ``closed``; raises ``OSError``."""
    wanted = attribute(CTA_MARK, struct.pack("!I", BASE))
    wanted += attribute(CTA_MARK_MASK, struct.pack("!I", MASK))
    for data in send_request(message(CTNETLINK, CT_GET, 0, wanted, NLM_F_DUMP)):
        identity, found, closed = _parse(data)
        if found & MASK == BASE:
            yield ConntrackEvent("closed" if closed else "began", identity, found)


def _filter() -> bytes:
    """The BPF program that accepts the events of begin, close and end."""
    accept, drop = 18, 17

    def code(at: int, operation: int, operand: int, yes: int = 0, no: int = 0) -> bytes:
        jumps = (to - at - 1 if to else 0 for to in (yes, no))
        return struct.pack("=HBBI", operation, *jumps, operand & 0xFFFFFFFF)

    attribute_at, nested_at = _SKF_AD_OFF + 12, _SKF_AD_OFF + 16
    return b"".join(
        code(at, *instruction)
        for at, instruction in enumerate(
            (
                (0x28, 4),  # the message's type, as the machine has it
                (0x15, socket.htons(_DELETE), accept),
                (0x28, 6),  # its flags
                (0x45, socket.htons(_NLM_F_CREATE), accept),
                (0x01, _CTA_PROTOINFO),
                (0x00, 20),  # behind both headers
                (0x20, attribute_at),
                (0x15, 0, drop),
                (0x01, _CTA_PROTOINFO_TCP),
                (0x20, nested_at),
                (0x15, 0, drop),
                (0x01, _CTA_PROTOINFO_TCP_STATE),
                (0x20, nested_at),
                (0x15, 0, drop),
                (0x07, 0),
                (0x50, 4),  # the attribute's content
                (0x35, min(CLOSED), accept),
                (0x06, 0),
                (0x06, 0xFFFFFFFF),
            )
        )
    )


class ConntrackEvents:
    """A socket that receives the kernel's events of connections that begin and end."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            code = ctypes.create_string_buffer(_filter())
            program = struct.pack("@HP", len(code) // 8, ctypes.addressof(code))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            for group in _GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            self._socket.close()
            raise PlatformError(
                f"the kernel sends no connection events: {error.strerror}",
                "it needs CONFIG_NF_CONNTRACK_EVENTS and nf_conntrack_netlink, or a strategy"
                " that counts no flows, such as `wrr`",
            ) from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    def read(self) -> tuple[list[ConntrackEvent], bool]:
        """The waiting events, and whether some were lost because the socket's buffer was full."""
        found: list[ConntrackEvent] = []
        receive = self._socket.recv
        lost = False
        while True:
            try:
                one = event(receive(_LONGEST))
            except BlockingIOError:
                return found, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            if one is not None:
                found.append(one)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Fill(NamedTuple):
    """How full the table is: connections, their limit, and packets dropped because it was full,
    since the namespace was created.
    """

    held: int
    limit: int
    dropped: int


def fill(proc: Path = PROC) -> Fill | None:
    """How full conntrack's table is; None where the kernel has no conntrack loaded."""
    values = proc / "sys/net/netfilter"
    try:
        held = int((values / "nf_conntrack_count").read_text(encoding="ascii"))
        limit = int((values / "nf_conntrack_max").read_text(encoding="ascii"))
        rows = (proc / "net/stat/nf_conntrack").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return None
    column = rows[0].split().index("drop")  # one row a core, hexadecimal
    return Fill(held, limit, sum(int(row.split()[column], 16) for row in rows[1:]))

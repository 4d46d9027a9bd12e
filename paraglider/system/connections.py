"""Which connections the kernel has, by their mark: a dump, what begins and ends afterwards, and
how full its table is.

Lives here: ctnetlink's messages (linux/netfilter/nfnetlink_conntrack.h), as few of their
attributes as are needed: the connection's id and its mark.
Rules: a connection without one of our marks is passed over. The kernel tells of the end of a
connection only when it was asked to tell of connections as that one began: so the set-up turns
nf_conntrack_events on.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from paraglider.errors import PlatformError
from paraglider.rules.marks import BASE, MASK
from paraglider.system.nfnetlink import NLM_F_DUMP, ask, attributes, message
from paraglider.system.queue.messages import NETLINK_NETFILTER, attribute

PROC: Final = Path("/proc")

CTNETLINK: Final = 1  # NFNL_SUBSYS_CTNETLINK
CT_NEW, CT_GET, CT_DELETE = 0, 1, 2  # IPCTNL_MSG_
CTA_MARK, CTA_ID, CTA_MARK_MASK = 8, 12, 21
# Of a TCP connection: its protocol's part, TCP's part of that, the state (enum tcp_conntrack).
_CTA_PROTOINFO, _CTA_PROTOINFO_TCP, _CTA_PROTOINFO_TCP_STATE = 4, 1, 1
#: states of TCP in which a connection is over: TIME_WAIT and CLOSE
CLOSED: Final = frozenset((7, 8))
_GROUPS: Final = (1, 3)  # NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_DESTROY
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_SO_RCVBUFFORCE: Final = 33
_RECEIVE_BUFFER: Final = 64 << 20
_LONGEST: Final = 1 << 13  # one event is some 300 bytes


class Event(NamedTuple):
    """A connection of ours began or ended."""

    began: bool
    identity: int
    mark: int


def event(data: bytes) -> Event | None:
    """What one message tells, None for what is not ours."""
    if len(data) < 20:
        return None
    (kind,) = struct.unpack_from("=H", data, 4)
    if kind not in (CTNETLINK << 8 | CT_NEW, CTNETLINK << 8 | CT_DELETE):
        return None
    mark = identity = 0
    for number, value in attributes(data):
        if number == CTA_MARK and len(value) == 4:
            mark = int.from_bytes(value, "big")
        elif number == CTA_ID:
            identity = int.from_bytes(value, "big")
    if mark & MASK != BASE:
        return None
    return Event(kind & 0xFF == CT_NEW, identity, mark)


def tcp_state(found: Mapping[int, bytes]) -> int:
    """conntrack's state (enum tcp_conntrack, 1 is SYN_SENT) of the TCP connection with these
    attributes; 0 for another protocol's.
    """
    inner = dict(attributes(found.get(_CTA_PROTOINFO, b""), 0))
    tcp = dict(attributes(inner.get(_CTA_PROTOINFO_TCP, b""), 0))
    return int.from_bytes(tcp.get(_CTA_PROTOINFO_TCP_STATE, b""), "big")


def dump() -> Iterator[Event]:
    """Every connection that has one of our marks now; raises ``OSError``."""
    wanted = attribute(CTA_MARK, struct.pack("!I", BASE))
    wanted += attribute(CTA_MARK_MASK, struct.pack("!I", MASK))
    for data in ask(message(CTNETLINK, CT_GET, 0, wanted, NLM_F_DUMP)):
        found = event(data)
        if found is not None:
            yield found


class Events:
    """A socket that hears of connections as they begin and end."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            for group in _GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            self._socket.close()
            raise PlatformError(
                f"the kernel does not tell of connections: {error.strerror}",
                "it needs CONFIG_NF_CONNTRACK_EVENTS and nf_conntrack_netlink, or another"
                " strategy than `weighted`",
            ) from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    def read(self) -> tuple[list[Event], bool]:
        """What waits, and whether some was lost because nobody read in time."""
        found: list[Event] = []
        receive = self._socket.recv
        lost = False
        while True:
            try:
                told = event(receive(_LONGEST))
            except BlockingIOError:
                return found, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            if told is not None:
                found.append(told)

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


class Fill(NamedTuple):
    """How full the table is: connections, the most there may be, packets dropped for want of room
    since the namespace began.
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

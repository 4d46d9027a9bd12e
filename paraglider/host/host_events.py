"""Kernel events about changes of the host: links, addresses, routes, rules, firewalls.

    rtnetlink      links, addresses, policy rules; routes to one address or of a default;
                   deleted neighbours, and proxy entries
    nf_tables      chains and rules: of our tables, of those that iptables-nft uses, of others
    legacy tables  send no events: their number of rules and their size are polled

Lives here: ``HostEvents``, which collects the kinds of changes.
Rules: an event only says that something of a kind may have changed. Lost messages (ENOBUFS) count
as changes of every kind. A legacy table is read only if it exists, because reading creates it.
"""

from __future__ import annotations

import ctypes
import errno
import selectors
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from paraglider.errors import PlatformError
from paraglider.forward.optional_tables import table_names
from paraglider.netfilter.iptables import legacy_tables
from paraglider.netfilter.nfnetlink import NETLINK_NETFILTER, attributes, split
from paraglider.netfilter.rules.nft import TABLE

News = Literal["links", "filter", "foreign"]
"""What may have changed: ``links`` and ``filter`` as in ``reconcile``, and ``foreign``, the chains
of other firewalls."""

EVERYTHING: Final[frozenset[News]] = frozenset({"links", "filter", "foreign"})

# linux/rtnetlink.h: RTNLGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR,
# _IPV6_ROUTE, _IPV6_RULE, _IPV4_NETCONF, _IPV6_NETCONF
_GROUPS: Final = (1, 3, 5, 7, 8, 9, 11, 19, 24, 25)
_ROUTES: Final = frozenset({24, 25})  # RTM_NEWROUTE, RTM_DELROUTE
_NEWNEIGH, _DELNEIGH = 28, 29
_PROXY: Final = 0x08  # NTF_PROXY, linux/neighbour.h
_WHOLE: Final = frozenset({0, 32, 128})  # prefix lengths of the routes that we set

_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1  # linux/netlink.h
_NFNLGRP_NFTABLES: Final = 7  # linux/netfilter/nfnetlink.h
_TABLE_NAME: Final = 1  # the first attribute of every message about a table and its objects
_ELEMENTS: Final = frozenset({12, 14})  # NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM
_GENERATION: Final = 15  # NFT_MSG_NEWGEN, which ends every transaction
_TABLES: Final = frozenset(table_names())
_IPTABLES: Final = frozenset({"raw", "mangle", "filter"})
_IP_FAMILIES: Final = frozenset({int(socket.AF_INET), int(socket.AF_INET6)})

_RECEIVE_BUFFER: Final = 1 << 20

#: by family, the socket and the level of the option that reads a legacy table's size
#: (linux/netfilter_ipv4/ip_tables.h: IPT_SO_GET_INFO, struct ipt_getinfo)
_LEGACY: Final = {
    4: (socket.AF_INET, socket.IPPROTO_IP),
    6: (socket.AF_INET6, socket.IPPROTO_IPV6),
}
_GET_INFO: Final = 64
_INFO: Final = struct.Struct("32s13I")  # name, hooks, entry and underflow offsets, entries, size


class HostEvents:
    """The kernel's events of this network namespace; those of nf_tables need CAP_NET_ADMIN.

    Raises ``PlatformError`` when the kernel does not offer them.
    """

    def __init__(self, proc: Path = Path("/proc/net")) -> None:
        self._proc = proc
        try:
            self._links = _subscribed(socket.NETLINK_ROUTE, _GROUPS)
            self._tables = _subscribed(NETLINK_NETFILTER, (_NFNLGRP_NFTABLES,))
        except OSError as error:
            raise PlatformError(
                f"cannot subscribe to the kernel's events: {error.strerror}", "start as root"
            ) from error
        self._legacy = self._read_legacy()

    def register(self, selector: selectors.BaseSelector) -> None:
        """Register the sockets with ``selector``; ``collect`` reads them."""
        selector.register(self._links, selectors.EVENT_READ)
        selector.register(self._tables, selectors.EVENT_READ)

    def close(self) -> None:
        """Close the sockets."""
        self._links.close()
        self._tables.close()

    def collect(self) -> set[News]:
        """The kinds of objects that may have changed since the last call."""
        news: set[News] = set()
        for sock, meaning in ((self._links, _of_links), (self._tables, _of_tables)):
            for message in _messages(sock):
                if message is None:
                    return set(EVERYTHING)
                if (one := meaning(message)) is not None:
                    news.add(one)
        return news

    def poll(self) -> set[News]:
        """As ``collect``, for legacy tables, which send no events."""
        before, self._legacy = self._legacy, self._read_legacy()
        return {"filter", "foreign"} if before != self._legacy else set()

    def _read_legacy(self) -> dict[tuple[int, str], bytes]:
        return {
            (family, table): _legacy_info(family, table)
            for family in _LEGACY
            for table in legacy_tables(family, self._proc)
        }


def _legacy_info(family: int, table: str) -> bytes:
    """The number of rules of a legacy table and their size, which differ for most changes; empty if
    the kernel does not answer.
    """
    address_family, level = _LEGACY[family]
    room = ctypes.create_string_buffer(table.encode(), _INFO.size)  # request and answer
    length = ctypes.c_uint32(_INFO.size)
    library = ctypes.CDLL(None)
    with socket.socket(address_family, socket.SOCK_DGRAM) as sock:
        to = (sock.fileno(), level, _GET_INFO, room, ctypes.byref(length))
        return room.raw if library.getsockopt(*to) == 0 else b""


def _subscribed(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _messages(sock: socket.socket) -> Iterator[bytes | None]:
    """The messages waiting on ``sock``; None stands for lost messages."""
    while True:
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield None
            continue
        yield from split(data)


def _of_links(message: bytes) -> News | None:
    """nlmsghdr, then rtmsg (family, destination's length, …) or ndmsg (…, flags at byte 10)."""
    (kind,) = struct.unpack_from("=H", message, 4)
    if kind in _ROUTES:
        return "links" if len(message) > 17 and message[17] in _WHOLE else None
    if kind == _NEWNEIGH:
        return "links" if len(message) > 26 and message[26] & _PROXY else None
    return "links"


def _of_tables(message: bytes) -> News | None:
    """nlmsghdr, nfgenmsg (family, …), then attributes; the first one names the table."""
    if len(message) < 20 or message[4] == _GENERATION:
        return None
    kind = message[4]  # of the two bytes, the other is the subsystem
    table = next((v for t, v in attributes(message) if t == _TABLE_NAME), b"")
    name = table.rstrip(b"\0").decode(errors="replace")
    if not name or (kind in _ELEMENTS and name != TABLE):
        return None
    if name in _TABLES or (name in _IPTABLES and message[16] in _IP_FAMILIES):
        return "filter"
    return "foreign"

"""Deletes entries of the kernel's connection table and changes their marks, through ctnetlink.

Rules: an entry of ours has the mark of its backend (``rules.marks``). Other entries are not
touched, except untranslated ones to the VIP and ports of a service.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from paraglider.errors import PlatformError
from paraglider.netfilter.connections import (
    CLOSED,
    CT_DELETE,
    CT_GET,
    CT_NEW,
    CTA_MARK,
    CTA_MARK_MASK,
    CTNETLINK,
    tcp_state,
)
from paraglider.netfilter.nfnetlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    attribute,
    attributes,
    message,
    send_request,
    send_requests,
)
from paraglider.netfilter.rules.marks import BASE, MASK

# Attributes of a connection, of its tuple, and of the tuple's two parts.
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS = 1, 2, 3
_SRC_NAT, _DST_NAT = 0x10, 0x20  # IPS_SRC_NAT, IPS_DST_NAT
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP: Final = ((1, 2), (3, 4))  # source and destination, of IPv4 and IPv6
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_NLA_F_NESTED: Final = 0x8000


class Entry(NamedTuple):
    """A connection to a VIP (packed) and port that goes to a backend (packed) and port.

    ``state`` is TCP's, as conntrack has it (``connections.tcp_state``), 0 for other protocols;
    ``original`` the attribute by which the kernel finds the connection.
    """

    mark: int
    protocol: int
    vip: bytes
    port: int
    backend: bytes
    backend_port: int
    state: int
    original: bytes

    @property
    def family(self) -> int:
        """The AF_ number."""
        return socket.AF_INET if len(self.vip) == 4 else socket.AF_INET6

    @property
    def passing(self) -> bool:
        """Whether it is not a live TCP connection, so that its next packet may begin a new one."""
        return self.protocol != socket.IPPROTO_TCP or self.state in CLOSED


def entries(marks: Container[int] | None = None) -> Iterator[Entry]:
    """The connections with one of our marks, or with one of ``marks``; raises ``OSError``."""
    wanted = attribute(CTA_MARK, struct.pack("!I", BASE))
    wanted += attribute(CTA_MARK_MASK, struct.pack("!I", MASK))
    for data in send_request(message(CTNETLINK, CT_GET, 0, wanted, NLM_F_DUMP)):
        found = _entry(data)
        if found.mark & MASK == BASE and (marks is None or found.mark in marks):
            yield found


class Conntrack:
    """Connections of the network namespace that the process runs in."""

    def forget(self, marks: Iterable[int], mask: int = 0xFFFFFFFF) -> None:
        """Delete every connection that has one of ``marks`` under ``mask``; raises
        ``PlatformError``.

        The kernel walks its table once for each mark (net/netfilter/nf_conntrack_netlink.c,
        ctnetlink_flush_conntrack).
        """
        for mark in marks:
            wanted = attribute(CTA_MARK, struct.pack("!I", mark))
            wanted += attribute(CTA_MARK_MASK, struct.pack("!I", mask))
            with _translate_errors():
                list(
                    send_request(message(CTNETLINK, CT_DELETE, socket.AF_UNSPEC, wanted, NLM_F_ACK))
                )

    def forget_passing(self, marks: Container[int]) -> None:
        """Delete the entries with one of ``marks`` that are not live TCP connections: the client's
        next packet begins a new one. Raises ``PlatformError``.
        """
        with _translate_errors():
            _delete(entry for entry in entries(marks) if entry.passing)

    def remark(self, marks: Container[int], new_mark: Callable[[Entry], int | None]) -> None:
        """Set the mark of the entries with one of ``marks`` to what ``new_mark`` returns for them;
        None leaves an entry as it is. Raises ``PlatformError``.
        """
        with _translate_errors():
            requests = []
            for entry in list(entries(marks)):
                mark = new_mark(entry)
                if mark is not None:
                    change = entry.original + attribute(CTA_MARK, struct.pack("!I", mark))
                    requests.append(message(CTNETLINK, CT_NEW, entry.family, change, NLM_F_ACK))
            send_requests(requests)

    def forget_untranslated(self, address: str, first: int, last: int) -> None:
        """Delete the UDP entries to ``address``, ports ``first`` to ``last``, without one of our
        marks; raises ``PlatformError``.

        NAT applies to the first packet of a connection only: an entry that is older than the table
        would stay untranslated for as long as its client sends.
        """
        vip = ipaddress.ip_address(address)
        family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
        with _translate_errors():
            # The kernel's own filter by address fails for IPv6 (seen with Linux 6.18).
            everything = send_request(message(CTNETLINK, CT_GET, family, b"", NLM_F_DUMP))
            _delete(
                entry
                for entry in (_entry(data) for data in everything if vip.packed in data)
                if entry.mark & MASK != BASE
                and entry.vip == vip.packed
                and entry.protocol == socket.IPPROTO_UDP
                and first <= entry.port <= last
            )


def _delete(found: Iterable[Entry]) -> None:
    """Delete ``found``; entries that have ended meanwhile are skipped."""
    send_requests(
        [message(CTNETLINK, CT_DELETE, e.family, e.original, NLM_F_ACK) for e in list(found)]
    )


def _entry(data: bytes) -> Entry:
    """The connection in one message."""
    found = dict(attributes(data))
    original = found.get(_CTA_TUPLE_ORIG, b"")
    first, reply = _ends(original), _ends(found.get(_CTA_TUPLE_REPLY, b""))
    mark, status = (int.from_bytes(found.get(n, b""), "big") for n in (CTA_MARK, _CTA_STATUS))
    if mark & MASK == BASE and status & (_SRC_NAT | _DST_NAT) == _SRC_NAT:
        first, reply = reply, first  # it began with the backend's segment (``rules.answers``)
    _, vip, _, port, protocol = first
    backend, _, backend_port, _, _ = reply
    name = attribute(_CTA_TUPLE_ORIG | _NLA_F_NESTED, original)
    return Entry(mark, protocol, vip, port, backend, backend_port, tcp_state(found), name)


def _ends(content: bytes) -> tuple[bytes, bytes, int, int, int]:
    """Source, destination, both ports and the protocol of a tuple."""
    parts = dict(attributes(content, 0))
    addresses = dict(attributes(parts.get(_CTA_TUPLE_IP, b""), 0))
    transport = dict(attributes(parts.get(_CTA_TUPLE_PROTO, b""), 0))
    source, destination = _CTA_IP[_CTA_IP[1][0] in addresses]
    numbers = (_CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT, _CTA_PROTO_NUM)
    sport, dport, protocol = (int.from_bytes(transport.get(n, b""), "big") for n in numbers)
    return addresses.get(source, b""), addresses.get(destination, b""), sport, dport, protocol


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PlatformError(
            f"conntrack entries cannot be changed: {error.strerror}",
            "it needs nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)",
        ) from error

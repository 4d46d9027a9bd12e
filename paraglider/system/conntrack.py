"""The kernel's table of connections: forgetting some, by ctnetlink requests.

Rules: connections of ours are named by their mark, which is that of their backend
(``rules.marks``); no other is touched but one that holds a port of a service without a backend.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from paraglider.errors import PlatformError
from paraglider.rules.marks import BASE, MASK
from paraglider.system.connections import (
    CT_DELETE,
    CT_GET,
    CTA_MARK,
    CTA_MARK_MASK,
    CTNETLINK,
)
from paraglider.system.nfnetlink import NLM_F_ACK, NLM_F_DUMP, ask, attributes, message
from paraglider.system.queue.messages import attribute

# Attributes of a connection, of its tuple, and of the tuple's two parts.
_CTA_TUPLE_ORIG: Final = 1
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_DST: Final = {4: 2, 6: 4}
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3
_NLA_F_NESTED: Final = 0x8000


class Conntrack:
    """Connections of the network namespace that the process runs in."""

    def forget(self, marks: Iterable[int], mask: int = 0xFFFFFFFF) -> None:
        """Delete every connection that has one of ``marks`` under ``mask``; raises
        ``PlatformError``.

        The kernel walks its table once a mark (net/netfilter/nf_conntrack_netlink.c,
        ctnetlink_flush_conntrack).
        """
        for mark in marks:
            wanted = attribute(CTA_MARK, struct.pack("!I", mark))
            wanted += attribute(CTA_MARK_MASK, struct.pack("!I", mask))
            with _told():
                list(ask(message(CTNETLINK, CT_DELETE, socket.AF_UNSPEC, wanted, NLM_F_ACK)))

    def forget_untranslated(self, address: str, first: int, last: int) -> None:
        """Delete the UDP connections to ``address``, ports ``first`` to ``last``, without a mark
        of ours; raises ``PlatformError``.

        One that began before the table was there would stay without a backend for as long as its
        client goes on: a connection is translated at its beginning or never.
        """
        vip = ipaddress.ip_address(address)
        family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
        with _told():
            entries = ask(message(CTNETLINK, CT_GET, family, b"", NLM_F_DUMP))
            # The kernel's own filter by address fails for IPv6 (seen with Linux 6.18).
            found = [_untranslated(e, vip, first, last) for e in entries if vip.packed in e]
            for original in found:
                if original is None:
                    continue
                request = message(CTNETLINK, CT_DELETE, family, original, NLM_F_ACK)
                with suppress(FileNotFoundError):  # it ended meanwhile
                    list(ask(request))


def _untranslated(
    entry: bytes, vip: ipaddress.IPv4Address | ipaddress.IPv6Address, first: int, last: int
) -> bytes | None:
    """The original tuple of ``entry``, as an attribute, where it is such a connection."""
    found = dict(attributes(entry))
    if int.from_bytes(found.get(CTA_MARK, b""), "big") & MASK == BASE:
        return None
    parts = dict(attributes(found.get(_CTA_TUPLE_ORIG, b""), 0))
    ends = dict(attributes(parts.get(_CTA_TUPLE_IP, b""), 0))
    protocol = dict(attributes(parts.get(_CTA_TUPLE_PROTO, b""), 0))
    port = int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big")
    if (
        ends.get(_CTA_IP_DST[vip.version]) != vip.packed
        or protocol.get(_CTA_PROTO_NUM) != bytes([socket.IPPROTO_UDP])
        or not first <= port <= last
    ):
        return None
    return attribute(_CTA_TUPLE_ORIG | _NLA_F_NESTED, found[_CTA_TUPLE_ORIG])


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PlatformError(
            f"conntrack does not forget connections: {error.strerror}",
            "it needs nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)",
        ) from error

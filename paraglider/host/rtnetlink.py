"""rtnetlink requests as bytes, fast enough for thousands of them in a set-up.

Lives here: requests, and the messages of addresses, neighbours and route look-ups; those of routes
and policy rules are in ``routing``.
A message is nlmsghdr, the header of its type, and attributes, all in host order except addresses
(linux/rtnetlink.h, linux/if_addr.h, linux/neighbour.h). A request takes some 50 µs.
Rules: a refusal of the kernel raises ``PlatformError``, except for the given error numbers.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from paraglider.config.types import IPAddress
from paraglider.errors import PlatformError
from paraglider.netfilter.nfnetlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    attribute,
    attributes,
    send_request,
)

NEWADDR: Final = 20
DELADDR: Final = 21
GETADDR: Final = 22
NEWNEIGH: Final = 28
DELNEIGH: Final = 29
GETNEIGH: Final = 30
NEWROUTE: Final = 24
DELROUTE: Final = 25
GETROUTE: Final = 26
NEWRULE: Final = 32
DELRULE: Final = 33
GETRULE: Final = 34

IFA_ADDRESS, IFA_LOCAL, IFA_CACHEINFO, IFA_FLAGS = 1, 2, 6, 8
NDA_DST, NDA_LLADDR, NDA_FLAGS_EXT = 1, 2, 15
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_PROXY: Final = 0x08  # NTF_PROXY

REPLACE: Final = 0x500  # NLM_F_CREATE | NLM_F_REPLACE
CREATE: Final = 0x600  # NLM_F_CREATE | NLM_F_EXCL

FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}

#: ifaddrmsg: family, prefix length, flags, scope, interface
_ADDRESS: Final = struct.Struct("=BBBBI")
#: ndmsg: family, three bytes of padding, interface, state, flags, type
_NEIGHBOUR: Final = struct.Struct("=BBHiHBB")
#: rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags
ROUTE: Final = struct.Struct("=BBBBBBBBI")
_HEAD: Final = struct.Struct("=IHHII")
_INTERRUPTED: Final = 0x10  # NLM_F_DUMP_INTR
_TRIES: Final = 3  # dumps, when others change the objects meanwhile
_U32: Final = struct.Struct("=I")


def request(what: str, kind: int, body: bytes, flags: int, *ignore: int) -> bool:
    """Send the request of type ``kind`` with ``body``; False when the kernel answers with one of
    the error numbers in ``ignore``. Raises ``PlatformError`` with the message "cannot ``what``".
    """
    return bool(_asked(what, kind, body, flags | NLM_F_ACK, ignore) is not None)


def dump(what: str, kind: int, body: bytes, *, strict: bool = False) -> list[bytes]:
    """All objects of a type, each as a complete message; raises ``PlatformError``.

    A dump that was interrupted by a change is repeated. With ``strict`` the kernel also filters by
    the other fields of ``body``, not only by the family (since Linux 4.20).
    """
    for _ in range(_TRIES):
        found = _asked(what, kind, body, NLM_F_DUMP, (), strict=strict) or []
        if not any(_HEAD.unpack_from(one)[2] & _INTERRUPTED for one in found):
            break
    return found


def get(what: str, kind: int, body: bytes, *ignore: int) -> bytes | None:
    """One answer; None when the kernel refuses with one of ``ignore``. Raises ``PlatformError``."""
    found = _asked(what, kind, body, 0, ignore)
    return found[0] if found else None


def address_body(
    family: int, index: int, prefix: int = 0, attributes_: bytes = b"", scope: int = 0
) -> bytes:
    """An ifaddrmsg and its attributes; ``family`` is 4 or 6."""
    return _ADDRESS.pack(FAMILY[family], prefix, 0, scope, index) + attributes_


def index_of_address(message: bytes) -> int:
    """The interface of an address."""
    index: int = _ADDRESS.unpack_from(message, 16)[-1]
    return index


def read_address(message: bytes) -> tuple[int, int, int, dict[int, bytes]]:
    """Interface, length of the prefix, flags and attributes of an address."""
    _, prefix, flags, _, index = _ADDRESS.unpack_from(message, 16)
    found = dict(attributes(message, 24))
    if IFA_FLAGS in found:
        flags = _U32.unpack(found[IFA_FLAGS])[0]
    return index, prefix, flags, found


def neighbour_body(
    address: IPAddress, index: int, state: int = 0, hardware: str | None = None, more: int = 0
) -> bytes:
    """An ndmsg and its attributes; ``more`` are the flags of NDA_FLAGS_EXT."""
    body = _NEIGHBOUR.pack(FAMILY[address.version], 0, 0, index, state, 0, 0)
    body += attribute(NDA_DST, address.packed)
    if hardware is not None:
        body += attribute(NDA_LLADDR, bytes.fromhex(hardware.replace(":", "")))
    if more:
        body += attribute(NDA_FLAGS_EXT, _U32.pack(more))
    return body


def neighbours_body(family: int, *, proxies: bool = False) -> bytes:
    """The request for all neighbours of ``family`` (4 or 6), or for all its proxy entries."""
    return _NEIGHBOUR.pack(FAMILY[family], 0, 0, 0, 0, _PROXY if proxies else 0, 0)


def read_neighbour(message: bytes) -> tuple[int, int, dict[int, bytes]]:
    """Interface, state and attributes of a neighbour."""
    _, _, _, index, state, _, _ = _NEIGHBOUR.unpack_from(message, 16)
    return index, state, dict(attributes(message, 28))


def proxy_body(address: IPAddress, index: int) -> bytes:
    """An ndmsg of a proxy entry on interface ``index``."""
    body = _NEIGHBOUR.pack(FAMILY[address.version], 0, 0, index, 0, _PROXY, 0)
    return body + attribute(NDA_DST, address.packed)


def route_query_body(address: IPAddress) -> bytes:
    """The request for the kernel's route to ``address``."""
    head = ROUTE.pack(FAMILY[address.version], address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return head + attribute(_RTA_DST, address.packed)


def read_route(message: bytes) -> tuple[int, bytes | None] | None:
    """The interface of the route and its gateway, packed; None if it has no interface."""
    found = dict(attributes(message, 28))
    if _RTA_OIF not in found:
        return None
    return _U32.unpack(found[_RTA_OIF])[0], found.get(_RTA_GATEWAY)


def read_attributes(message: bytes, size: int) -> dict[int, bytes]:
    """The attributes of a message whose own header has ``size`` bytes."""
    return dict(attributes(message, _HEAD.size + size))


def _asked(
    what: str,
    kind: int,
    body: bytes,
    flags: int,
    ignore: tuple[int, ...],
    *,
    strict: bool = False,
) -> list[bytes] | None:
    head = _HEAD.pack(_HEAD.size + len(body), kind, NLM_F_REQUEST | flags, 0, 0)
    try:
        return list(send_request(head + body, socket.NETLINK_ROUTE, strict=strict))
    except OSError as error:
        if error.errno in ignore:
            return None
        raise PlatformError(f"cannot {what}: {error.strerror or error}") from error

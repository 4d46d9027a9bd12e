"""Whether an interface can carry packets, and which can have a carrier, by rtnetlink.

Lives here: ``link_state``, ``lacks_header``, ``ethernet_links``, ``ethernet_addresses``.
Rules: the flags are those of linux/if.h; see netdevice(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final, Literal

from paraglider.host import rtnetlink
from paraglider.netfilter.nfnetlink import attribute

LinkState = Literal["up", "no carrier", "down", "gone"]

_UP: Final = 0x1  # IFF_UP: an administrator's decision
_LOOPBACK: Final = 0x8  # IFF_LOOPBACK
_LOWER_UP: Final = 0x10000  # IFF_LOWER_UP: the driver has a carrier

_GETLINK: Final = 18  # RTM_GETLINK, linux/rtnetlink.h
_ADDRESS: Final = 1  # IFLA_ADDRESS
_NAME: Final = 3  # IFLA_IFNAME, linux/if_link.h
_MASTER: Final = 10  # IFLA_MASTER
_ETHERNET: Final = 1  # ARPHRD_ETHER, linux/if_arp.h
_LOOPBACK_TYPE: Final = 772  # ARPHRD_LOOPBACK
#: ifinfomsg: family, padding, type, interface, flags, mask of changed flags
_LINK: Final = struct.Struct("=BBHiII")


def link_state(interface: str) -> LinkState:
    """The state of ``interface`` in this network namespace; raises ``PlatformError``."""
    found = _link(interface)
    if found is None:
        return "gone"
    _, flags = found
    if not flags & _UP:
        return "down"
    return "up" if flags & _LOWER_UP else "no carrier"


def lacks_header(interface: str) -> bool:
    """Whether ``interface`` exists, and its packets have no Ethernet header, as with WireGuard and
    tun; raises ``PlatformError``.
    """
    found = _link(interface)
    return found is not None and found[0] not in (_ETHERNET, _LOOPBACK_TYPE)


def _link(interface: str) -> tuple[int, int] | None:
    """The type (linux/if_arp.h) and the flags of ``interface``; None if there is none."""
    what = f"see the interface {interface}"
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0)
    body += attribute(_NAME, interface.encode() + b"\0")
    found = rtnetlink.get(what, _GETLINK, body, errno.ENODEV)
    if found is None:
        return None
    _, _, kind, _, flags, _ = _LINK.unpack_from(found, 16)
    return kind, flags


def ethernet_links() -> dict[int, str]:
    """The interfaces, by index, that are up, have Ethernet's head, and are not ports of another
    (bridge, bond, team, VRF), which has their packets; without loopback. Raises ``PlatformError``.
    """
    return {index: name for index, (name, _) in ethernet_addresses().items()}


def ethernet_addresses() -> dict[int, tuple[str, bytes]]:
    """Names and MAC addresses of the interfaces of ``ethernet_links``; raises as that."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0)
    found = {}
    for message in rtnetlink.dump("list the interfaces", _GETLINK, body):
        _, _, kind, index, flags, _ = _LINK.unpack_from(message, 16)
        said = rtnetlink.read_attributes(message, _LINK.size)
        if kind == _ETHERNET and flags & _UP and not flags & _LOOPBACK and _MASTER not in said:
            name = said[_NAME].rstrip(b"\0").decode(errors="replace")
            found[index] = name, said.get(_ADDRESS, bytes(6))
    return found

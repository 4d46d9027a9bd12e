"""Whether an interface can carry packets, by rtnetlink.

Lives here: ``link_state``.
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
_LOWER_UP: Final = 0x10000  # IFF_LOWER_UP: the driver has a carrier

_GETLINK: Final = 18  # RTM_GETLINK, linux/rtnetlink.h
_NAME: Final = 3  # IFLA_IFNAME, linux/if_link.h
#: ifinfomsg: family, padding, type, interface, flags, what of them is to change
_LINK: Final = struct.Struct("=BBHiII")


def link_state(interface: str) -> LinkState:
    """The state of ``interface`` in this network namespace; raises ``PlatformError``."""
    what = f"see the interface {interface}"
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0)
    body += attribute(_NAME, interface.encode() + b"\0")
    found = rtnetlink.get(what, _GETLINK, body, errno.ENODEV)
    if found is None:
        return "gone"
    _, _, _, _, flags, _ = _LINK.unpack_from(found, 16)
    if not flags & _UP:
        return "down"
    return "up" if flags & _LOWER_UP else "no carrier"

"""Whether an interface can carry packets, by rtnetlink.

Lives here: ``link_state``.
Rules: the flags are those of linux/if.h, as netdevice(7) tells of them.
"""

from __future__ import annotations

import errno
from typing import Final, Literal

from paraglider.system.netlink import requests

LinkState = Literal["up", "no carrier", "down", "gone"]

_UP: Final = 0x1  # IFF_UP: an administrator's decision
_LOWER_UP: Final = 0x10000  # IFF_LOWER_UP: the driver has a carrier


def link_state(interface: str) -> LinkState:
    """The state of ``interface`` in this network namespace; raises ``PlatformError``."""
    flags: int | None = None
    with requests(f"see the interface {interface}", errno.ENODEV) as netlink:
        for message in netlink.link("get", ifname=interface):
            flags = message["flags"]
    if flags is None:
        return "gone"
    if not flags & _UP:
        return "down"
    return "up" if flags & _LOWER_UP else "no carrier"

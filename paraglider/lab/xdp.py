"""Links on which the program at XDP can carry, as network cards do without more.

A veth pair leaves work to a network card that it does not have: checksums, and VLAN tags beside the
frame. It takes frames of XDP only while its peer has GRO on, or a program.

Lives here: ``prepare_for``, ``prepare``.
Rules: numbers are those of linux/ethtool.h and linux/sockios.h.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterable
from typing import Final

from paraglider.lab.namespace import Namespace

_SIOCETHTOOL: Final = 0x8946
_SET_SENT_SUMS, _SET_GRO, _GET_FLAGS, _SET_FLAGS = 0x17, 0x2C, 0x25, 0x26  # ETHTOOL_STXCSUM, …
_TAGS_BY_DEVICE: Final = 0x180  # ETH_FLAG_TXVLAN, ETH_FLAG_RXVLAN


def prepare_for(carrier: str | None, namespaces: Iterable[Namespace]) -> None:
    """``prepare`` all ``namespaces`` if the ``carrier`` is `xdp`."""
    for namespace in namespaces if carrier == "xdp" else ():
        prepare(namespace)


def prepare(namespace: Namespace) -> None:
    """Have every link of ``namespace`` but loopback finish checksums, keep VLAN tags in the frame,
    and take frames of XDP. Raises ``OSError``.
    """
    with namespace.entered():
        names = [name for _, name in socket.if_nameindex() if name != "lo"]
        for name in names:
            _ethtool(name, _SET_SENT_SUMS, 0)
            _ethtool(name, _SET_GRO, 1)
            flags = _ethtool(name, _GET_FLAGS, 0)
            _ethtool(name, _SET_FLAGS, flags & ~_TAGS_BY_DEVICE)


def _ethtool(name: str, command: int, number: int) -> int:
    """A request with one number (struct ethtool_value); returns that of the answer."""
    value = array.array("I", [command, number])
    request = struct.pack("16sP16x", name.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return value[1]

"""What the drivers of interfaces can do at XDP.

Lives here: ``XdpDevice``, ``xdp_devices``, ``sides``, ``require_xdp``, ``XdpUnavailableError``,
and ``CARRY_AT_TC``, how its remedies end.
Rules: nothing is changed. The features are those of the generic netlink family "netdev" (Linux 6.3,
Documentation/netlink/specs/netdev.yaml); the offload of tags is read by ethtool's ioctl
(linux/ethtool.h).
"""

from __future__ import annotations

import fcntl
import socket
import struct
from contextlib import closing
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from typing import Final

from paraglider.config.model import Config
from paraglider.errors import PlatformError
from paraglider.host.carrier_support import CarrierUnavailableError
from paraglider.host.link_state import ethernet_addresses
from paraglider.netfilter.nfnetlink import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    attribute,
    attributes,
    send_request,
)

_GENERIC: Final = 16  # NETLINK_GENERIC, linux/netlink.h
#: nlmsghdr and genlmsghdr: length, type, flags, sequence, port; command, version
_HEAD: Final = struct.Struct("=IHHIIBBH")
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2  # linux/genetlink.h
_GET_DEVICE, _INDEX, _FEATURES = 1, 1, 3  # linux/netdev.h

# enum netdev_xdp_act
_BASIC: Final = 1
_REDIRECT: Final = 2
_XMIT: Final = 4

_SIOCETHTOOL: Final = 0x8946
_GET_FLAGS: Final = 0x25  # ETHTOOL_GFLAGS
_TAKES_TAGS_OUT: Final = 1 << 8  # ETH_FLAG_RXVLAN
_DRIVER: Final = 3  # ETHTOOL_GDRVINFO
CARRY_AT_TC: Final = "or set `carrier: bpf`, which carries at tc"


class XdpUnavailableError(CarrierUnavailableError):
    """BPF cannot carry at XDP on this host."""


@dataclass(frozen=True, slots=True)
class XdpDevice:
    """An interface: its name and MAC address; whether it takes frames from XDP (``sends``); and why
    no program can run at its XDP, with the remedy, both empty if one can.
    """

    name: str
    mac: bytes
    sends: bool
    lacks: str
    remedy: str


def xdp_devices() -> dict[int, XdpDevice]:
    """The Ethernet interfaces that are up and are no ports, by index; raises ``PlatformError``."""
    try:
        features = _features()
    except OSError as error:
        raise PlatformError(f"cannot read what drivers can do at XDP: {error.strerror}") from error
    found = {}
    for index, (name, mac) in ethernet_addresses().items():
        has = features.get(index, 0)
        lacks, remedy = _lack(name, has)
        found[index] = XdpDevice(name, mac, bool(has & _XMIT), lacks, remedy)
    return found


def sides(config: Config) -> frozenset[str]:
    """The names of the interfaces at which XDP carries; empty: all that can."""
    found = (config.network.public, config.network.private)
    return frozenset(side.interface for side in found if side is not None)


def require_xdp(config: Config) -> None:
    """Raise ``XdpUnavailableError`` if an interface of ``config`` has no XDP, or, where it
    names none, no interface of this host; and ``PlatformError``.
    """
    names = sides(config)
    devices = [one for one in xdp_devices().values() if not names or one.name in names]
    lacking = [one for one in devices if one.lacks]
    if lacking and (names or len(lacking) == len(devices)):
        first = lacking[0]
        raise XdpUnavailableError(
            f"interface {first.name}: {first.lacks}", f"{first.remedy}, {CARRY_AT_TC}"
        )
    if not devices:
        what = (
            f"no interface {' or '.join(sorted(names))}".rstrip() + " is up, with Ethernet's head"
        )
        raise XdpUnavailableError(what, f"set an interface up, {CARRY_AT_TC}")


def _lack(name: str, features: int) -> tuple[str, str]:
    """Why no program can run at XDP of the interface ``name``, and the remedy."""
    if not (features & _BASIC and features & _REDIRECT):
        driver = _driver(name)
        return (
            f"its driver{f' {driver}' if driver else ''} has no XDP",
            "use an interface whose driver has it",
        )
    if _flags(name) & _TAKES_TAGS_OUT:
        return (
            "its driver takes VLAN tags out of frames (rx-vlan-offload), so XDP cannot see them",
            f"run `ethtool -K {name} rxvlan off`",
        )
    return "", ""


def _features() -> dict[int, int]:
    """The bits of enum netdev_xdp_act, by interface; none where the kernel is older."""
    asked = attribute(_FAMILY_NAME, b"netdev\0")
    family = 0
    for message in send_request(_request(_CONTROL, _GET_FAMILY, asked, 0), _GENERIC):
        family = struct.unpack("=H", dict(attributes(message))[_FAMILY_ID])[0]
    found = {}
    for message in send_request(_request(family, _GET_DEVICE, b"", NLM_F_DUMP), _GENERIC):
        said = dict(attributes(message))
        if _INDEX in said and _FEATURES in said:
            (index,) = struct.unpack("=I", said[_INDEX])
            (found[index],) = struct.unpack("=Q", said[_FEATURES])
    return found


def _request(kind: int, command: int, body: bytes, flags: int) -> bytes:
    size = _HEAD.size + len(body)
    return _HEAD.pack(size, kind, NLM_F_REQUEST | flags, 0, 0, command, 1, 0) + body


def _flags(name: str) -> int:
    """The offloads of an interface (ETHTOOL_GFLAGS); 0 where it has none."""
    found: int = struct.unpack_from("=4xI", _ethtool(name, struct.pack("=II", _GET_FLAGS, 0)))[0]
    return found


def _driver(name: str) -> str:
    """The name of an interface's driver (struct ethtool_drvinfo); empty where it is not known."""
    answer = _ethtool(name, struct.pack("=I192x", _DRIVER))
    return answer[4:36].partition(b"\0")[0].decode(errors="replace")


def _ethtool(name: str, request: bytes) -> bytes:
    """The answer to a request of ethtool; zeros if there is none, or the interface is gone."""
    room = create_string_buffer(request, len(request))
    call = struct.pack("=16sQ16x", name.encode(), addressof(room))
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        try:
            fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, call)
        except OSError:
            return bytes(len(request))
    return room.raw

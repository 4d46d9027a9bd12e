"""Announces addresses to neighbours: gratuitous ARP, unsolicited neighbour advertisements.

A neighbour with another host's hardware address for a VIP keeps sending there until its entry
expires, which takes seconds (Linux: 9 s). An announcement updates the entry at once.

    IPv4   an ARP request whose sender and target are the address (RFC 5227, 3)
    IPv6   a neighbour advertisement to all nodes, with the override flag (RFC 4861, 7.2.6)

Lives here: the packets, ``held`` (the addresses that this host answers for, and their interfaces),
``Announcer``, ``Announcements`` (the schedule), and ``announce_now`` for one-shot commands.
Rules: only addresses that the kernel has are announced, on Ethernet only, never on loopback. A link
that accepts no packet is not an error, because announcements are repeated. Time is an argument.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from math import inf
from typing import Final

from paraglider.config.model import Config
from paraglider.config.types import IPAddress
from paraglider.core.checksum import internet_checksum, ones_sum
from paraglider.errors import PlatformError
from paraglider.host import rtnetlink
from paraglider.host.sysctl import Sysctl, conf

REPEATED: Final = (0.0, 1.0, 2.0, 4.0)
"""Seconds after an address was added, at which it is announced."""

_AT_ONCE: Final = 3  # announcements of a one-shot command
_BETWEEN: Final = 0.1  # seconds

_ETH_P_ARP: Final = 0x0806
_ETH_P_IPV6: Final = 0x86DD
_ETHERNET: Final = 1  # ARPHRD_ETHER
_REQUEST: Final = 1
_ADVERTISEMENT: Final = 136
_ROUTER, _OVERRIDE = 0x80000000, 0x20000000
_TARGET_HARDWARE: Final = 2  # option: target link-layer address
_ALL_NODES: Final = ipaddress.IPv6Address("ff02::1")
_TO_ALL: Final = bytes([0xFF] * 6)
_TO_ALL_NODES: Final = bytes([0x33, 0x33, 0, 0, 0, 1])  # RFC 2464, 7

_SIOCGIFFLAGS: Final = 0x8913  # linux/sockios.h
_SIOCGIFHWADDR: Final = 0x8927
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING, _IFF_NOARP = 0x1, 0x8, 0x40, 0x80
_DECIDING: Final = _IFF_UP | _IFF_LOOPBACK | _IFF_RUNNING | _IFF_NOARP

Place = tuple[str, IPAddress]
"""An interface, and an address that this host answers for there."""


def gratuitous_arp(address: IPAddress, hardware: bytes) -> bytes:
    """The ARP packet by which ``hardware`` (6 bytes) claims the IPv4 ``address``."""
    head = struct.pack("!HHBBH", _ETHERNET, 0x0800, 6, 4, _REQUEST)
    return head + hardware + address.packed + bytes(6) + address.packed


def advertisement(address: IPAddress, hardware: bytes, source: IPAddress, *, router: bool) -> bytes:
    """The IPv6 packet by which ``hardware`` claims ``address``, sent from ``source``."""
    flags = _OVERRIDE | (_ROUTER if router else 0)
    body = struct.pack("!I", flags) + address.packed
    body += bytes([_TARGET_HARDWARE, 1]) + hardware
    pseudo = source.packed + _ALL_NODES.packed + struct.pack("!II", 4 + len(body), 58)
    head = struct.pack("!BB", _ADVERTISEMENT, 0)
    checksum = internet_checksum(head + b"\0\0" + body, ones_sum(pseudo))
    icmp = head + struct.pack("!H", checksum) + body
    outer = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 255)
    return outer + source.packed + _ALL_NODES.packed + icmp


def addresses_of(config: Config) -> set[IPAddress]:
    """The addresses to announce if the host has them: VIPs and gateway addresses."""
    private = config.network.private
    gateways = {gateway.ip for gateway in (private.gateways if private is not None else ())}
    return gateways | {service.vip.ip for service in config.services}


def held(addresses: Iterable[IPAddress]) -> list[Place]:
    """The interfaces of those of ``addresses`` that the kernel has, or answers for as a proxy (the
    VIPs of `forward: dsr`); raises ``PlatformError``.
    """
    wanted = {address.packed: address for address in addresses}
    names = dict(socket.if_nameindex())
    found: dict[Place, None] = {}
    for family in sorted({address.version for address in wanted.values()}):
        body = rtnetlink.address_body(family, 0)
        for message in rtnetlink.dump("list the addresses", rtnetlink.GETADDR, body):
            index, _, _, parts = rtnetlink.read_address(message)
            packed = parts.get(rtnetlink.IFA_LOCAL) or parts.get(rtnetlink.IFA_ADDRESS, b"")
            if (address := wanted.get(packed)) is not None and index in names:
                found[names[index], address] = None
        body = rtnetlink.neighbours_body(family, proxies=True)
        for message in rtnetlink.dump("list the proxies", rtnetlink.GETNEIGH, body):
            index, _, parts = rtnetlink.read_neighbour(message)
            address = wanted.get(parts.get(rtnetlink.NDA_DST, b""))
            if address is not None and index in names:
                found[names[index], address] = None
    return list(found)


class Announcer:
    """A socket that announces addresses; opening it needs CAP_NET_RAW, using it does not."""

    def __init__(self) -> None:
        # Of protocol 0, which receives nothing.
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except OSError as error:
            raise PlatformError(
                f"cannot announce addresses: {error.strerror}", "it takes CAP_NET_RAW"
            ) from error
        self._socket.setblocking(False)

    def announce(self, places: Sequence[Place]) -> int:
        """Announce the addresses once, each on its interface; returns the number of packets sent.

        Interfaces that are not Ethernet, are down or are loopback are skipped.
        """
        links = {name: self._hardware(name) for name, _ in places}
        routers = {name for name in links if _forwards(name)}
        local = _link_local() if any(a.version == 6 for _, a in places) else {}
        count = 0
        for interface, address in places:
            hardware = links[interface]
            if hardware is None:
                continue
            if address.version == 4:
                packet, kind, to = gratuitous_arp(address, hardware), _ETH_P_ARP, _TO_ALL
            else:
                # The link-local address as the source: the address itself may be a duplicate.
                source = local.get(interface, address)
                router = interface in routers
                packet = advertisement(address, hardware, source, router=router)
                kind, to = _ETH_P_IPV6, _TO_ALL_NODES
            count += self._send(packet, (interface, kind, 0, 0, to))
        return count

    def reachable(self, places: Iterable[Place]) -> list[Place]:
        """Those of ``places`` whose interface is Ethernet, up, and has a carrier."""
        every = list(places)
        links = {name for name, _ in every if self._hardware(name) is not None}
        return [place for place in every if place[0] in links]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, packet: bytes, to: tuple[str, int, int, int, bytes]) -> bool:
        try:
            return self._socket.sendto(packet, to) > 0
        except OSError as error:
            # Down, gone, or without room: the next announcement may get through.
            if error.errno in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO, errno.ENOBUFS):
                return False
            if isinstance(error, BlockingIOError):
                return False
            raise

    def _hardware(self, interface: str) -> bytes | None:
        """The address of an Ethernet interface that is up and running, None for every other."""
        request = struct.pack("16s24x", interface.encode()[:15])
        try:
            flags = struct.unpack_from(
                "=H", fcntl.ioctl(self._socket.fileno(), _SIOCGIFFLAGS, request), 16
            )[0]
            answer = fcntl.ioctl(self._socket.fileno(), _SIOCGIFHWADDR, request)
        except OSError:
            return None
        kind = struct.unpack_from("=H", answer, 16)[0]
        if kind != _ETHERNET or flags & _DECIDING != _IFF_UP | _IFF_RUNNING:
            return None
        return answer[18:24]


class Announcements:
    """Announces addresses when they come here, and at ``REPEATED`` afterwards.

    An address is new if it was absent in the last ``update``: at the first one all are, later also
    those of a link that was down.
    """

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._here: frozenset[Place] = frozenset()
        self._due: list[tuple[float, frozenset[Place]]] = []

    def update(self, places: Iterable[Place], now: float) -> None:
        """Set all ``places`` that this host answers for; ``now`` is in seconds."""
        here = frozenset(self._announcer.reachable(places))
        came, self._here = here - self._here, here
        if came:
            more = ((now + later, came) for later in REPEATED)
            self._due = sorted([*self._due, *more], key=lambda due: due[0])

    def wait(self, now: float) -> float:
        """Seconds until ``announce`` has something to do."""
        return max(0.0, self._due[0][0] - now) if self._due else inf

    def announce(self, now: float) -> None:
        """Announce the addresses that are due and still present; raises ``PlatformError`` when the
        kernel does not list its link-local addresses.
        """
        some: set[Place] = set()
        while self._due and self._due[0][0] <= now:
            some |= self._due.pop(0)[1]
        if some & self._here:
            self._announcer.announce(sorted(some & self._here, key=str))


def announce_now(places: Sequence[Place]) -> None:
    """Announce ``places`` three times in a row; raises ``PlatformError`` without CAP_NET_RAW."""
    if not places:
        return
    with closing(Announcer()) as announcer:
        for time_left in reversed(range(_AT_ONCE)):
            if not announcer.announce(places):
                return
            if time_left:
                time.sleep(_BETWEEN)


def _link_local() -> dict[str, IPAddress]:
    """An IPv6 link-local address of each interface that has one."""
    names = dict(socket.if_nameindex())
    found: dict[str, IPAddress] = {}
    body = rtnetlink.address_body(6, 0)
    for message in rtnetlink.dump("list the addresses", rtnetlink.GETADDR, body):
        index, _, _, parts = rtnetlink.read_address(message)
        packed = parts.get(rtnetlink.IFA_ADDRESS, b"")
        if packed[:2] == b"\xfe\x80" and index in names:
            found.setdefault(names[index], ipaddress.ip_address(packed))
    return found


def _forwards(interface: str) -> bool:
    """Whether the kernel forwards on ``interface``, and so sets the router flag itself."""
    return Sysctl().read(conf(6, interface, "forwarding")) == "1"

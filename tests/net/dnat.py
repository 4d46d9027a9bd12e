"""Kernel DNAT in namespaces, one packet at a time: in by one wire, out by the other.

Lives here: ``KernelDnat`` and its addresses. Of two namespaces ``router`` translates, and ``ends``
has the other ends of its wires without an address, so that only the test answers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from waiting import TIMEOUT, await_connected

from paraglider.lab.namespace import Namespace

ETHERNET: Final = {4: 0x0800, 6: 0x86DD}
#: the router's hardware address on either wire, and that of whoever is at the other end
ROUTER_MAC, END_MAC = bytes.fromhex("02000000aa01"), bytes.fromhex("02000000bb01")
#: the router's addresses on the clients' side
OWN: Final = {4: bytes((192, 168, 0, 1)), 6: ipaddress.ip_address("2001:db8::1").packed}
MAPPED: Final = {("tcp", 80): 8080, ("udp", 53): 5353}


@dataclass(frozen=True)
class World:
    """The addresses of one family."""

    family: int
    client: str
    vip: str
    backend: str
    router: str


WORLDS: Final = {
    4: World(4, "192.168.0.100", "192.168.0.11", "10.0.0.1", "172.16.5.1"),
    6: World(6, "2001:db8::100", "2001:db8::11", "fd00:10::1", "2001:db8:5::1"),
}

_RULES: Final = """\
table {family} nat {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    {family} daddr {vip} tcp dport 80 dnat to {mapped}:8080
    {family} daddr {vip} udp dport 53 dnat to {mapped}:5353
    {family} daddr {vip} dnat to {backend}
  }}
}}
"""


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """This thread stays on a core meanwhile: packets that are sent from several wait in a queue of
    each, and may overtake each other.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class KernelDnat:
    """A router that translates for the services of ``MAPPED`` and ``any``."""

    def __init__(self) -> None:
        self.router = Namespace(f"dnat-{os.getpid()}-router")
        self.ends = Namespace(f"dnat-{os.getpid()}-ends")
        self._wires: dict[str, socket.socket] = {}
        self.probes = 0
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove both namespaces."""
        for wire in self._wires.values():
            wire.close()
        self.router.close()
        self.ends.close()

    def _set_up(self) -> None:
        self.router.sysctl(
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.default.send_redirects=0",
        )
        self.ends.sysctl("net.ipv6.conf.default.disable_ipv6=1")
        for side in ("client", "backend"):
            self.ends.ip(f"link add end-{side[0]} type veth peer name {side}")
            self.ends.ip(f"link set {side} netns {self.router.name}", f"link set end-{side[0]} up")
            self.router.ip(f"link set {side} address {ROUTER_MAC.hex(':')}", f"link set {side} up")
        for world in WORLDS.values():
            near = {4: "192.168.0.1/24", 6: "2001:db8::1/64"}[world.family]
            far = {4: "10.0.0.254/24", 6: "fd00:10::254/64"}[world.family]
            beyond = {4: "172.16.5.0/24", 6: "2001:db8:5::/64"}[world.family]
            mac = END_MAC.hex(":")
            self.router.ip(
                f"addr add {near} dev client nodad"
                if world.family == 6
                else f"addr add {near} dev client",
                f"addr add {far} dev backend nodad"
                if world.family == 6
                else f"addr add {far} dev backend",
                f"neigh add {world.client} lladdr {mac} dev client nud permanent",
                f"neigh add {world.backend} lladdr {mac} dev backend nud permanent",
                f"route add {beyond} via {world.backend} dev backend",
            )
            name = {4: "ip", 6: "ip6"}[world.family]
            mapped = f"[{world.backend}]" if world.family == 6 else world.backend
            rules = _RULES.format(family=name, vip=world.vip, backend=world.backend, mapped=mapped)
            self.router.run(["nft", "-f", "-"], text=rules)
        await_connected(self.ends, "end-c", "end-b")
        await_connected(self.router, "client", "backend")
        with self.ends.entered():
            for side in ("client", "backend"):
                wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                wire.bind((f"end-{side[0]}", 0))
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                self._wires[side] = wire

    def forward(self, packets: list[bytes], side: str) -> list[bytes]:
        """The packets at the other wire after ``packets`` came in from ``side``. A marker that is
        not translated follows them, so that its arrival shows that all are through.
        """
        family = packets[0][0] >> 4
        wire = self._wires[side]
        other = self._wires["backend" if side == "client" else "client"]
        with one_core():
            for packet in [*packets, self._marker(family, side)]:
                wire.send(ROUTER_MAC + END_MAC + ETHERNET[family].to_bytes(2, "big") + packet)
        found: list[bytes] = []
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            if not select.select([other], [], [], deadline - time.monotonic())[0]:
                continue
            frame, (_, _, kind, *_) = other.recvfrom(1 << 16)
            if kind == socket.PACKET_OUTGOING or frame[6:12] != ROUTER_MAC:
                continue
            if int.from_bytes(frame[12:14], "big") != ETHERNET[family]:
                continue
            packet = frame[14:]
            length = (
                int.from_bytes(packet[2:4], "big")
                if family == 4
                else int.from_bytes(packet[4:6], "big") + 40
            )
            packet = packet[:length]
            protocol = packet[9] if family == 4 else packet[6]
            if protocol == 132:
                if int.from_bytes(packet[-4:], "big") == self.probes:
                    return found
            elif not self._own(packet):
                found.append(packet)
        raise TimeoutError("what only passes did not come through")

    @staticmethod
    def _own(packet: bytes) -> bool:
        """Whether the router sent it: about neighbours and unreachable hosts."""
        if packet[0] >> 4 == 4:
            return packet[12:16] == OWN[4]
        return packet[8:24] == OWN[6] or packet[24] == 0xFF or packet[8] == 0xFE

    def _marker(self, family: int, side: str) -> bytes:
        """A numbered packet with SCTP's protocol number, which is not translated."""
        self.probes += 1
        world = WORLDS[family]
        ends = [world.client, world.backend]
        source, destination = ends if side == "client" else reversed(ends)
        addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
        data = self.probes.to_bytes(8, "big")
        if family == 6:
            return b"\x60\0\0\0" + len(data).to_bytes(2, "big") + b"\x84\x40" + addresses + data
        head = b"\x45\0" + (20 + len(data)).to_bytes(2, "big") + b"\0\0\0\0\x40\x84\0\0" + addresses
        total = sum(int.from_bytes(head[i : i + 2], "big") for i in range(0, 20, 2))
        total = (total & 0xFFFF) + (total >> 16)
        check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        return head[:10] + check.to_bytes(2, "big") + head[12:] + data

"""Helpers of the core tests: packets by scapy, services, and one packet through the packet path.

Lives here: ``Family`` (addresses of one family, and its packet builders), ``service`` and ``nat``
(core objects with short arguments), ``run`` (one packet through the core, in the middle of a larger
buffer that must not be read or written outside the packet).
Rules: scapy builds every packet, and every expected packet from scratch, without code of the core:
its checksums are the oracle.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

from hypothesis import settings
from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    in4_pseudoheader,
)
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    PseudoIPv6,
)
from scapy.packet import Packet, Raw
from scapy.utils import checksum as scapy_checksum

from paraglider.core import flow, strategies
from paraglider.core.affinity import Affinity
from paraglider.core.balancer import Balancer
from paraglider.core.checksum import COMPLETE, KERNELS, UNFINISHED
from paraglider.core.flow import Flow, FlowTimeouts
from paraglider.core.flow_states import SYN_SENT
from paraglider.core.flow_table import FlowTable
from paraglider.core.hello_routes import RouteMatch
from paraglider.core.pool import Backend, Pool
from paraglider.core.service import ALL_PORTS, ServiceMap, VirtualService
from paraglider.core.translation import Translation
from paraglider.forward.nat import datapath as nat_module
from paraglider.forward.nat.datapath import NatDatapath

#: whether the packet path runs compiled
COMPILED = not str(nat_module.__file__).endswith(".py")

#: what the transport checksum of a packet in the buffer is
CHECKSUMS = (COMPLETE, UNFINISHED, KERNELS)

#: for properties of pure functions
MANY = settings(max_examples=300)
#: for properties that scapy judges, or that make a whole packet path for each example
SOME = settings(max_examples=120)

FRINGE = 24  # bytes around the packet in the buffer, a whole address and more


def packed(address: str) -> bytes:
    """The address as it stands in a packet."""
    return ipaddress.ip_address(address).packed


@dataclass(frozen=True)
class Family:
    """The addresses of one family, as text, and the differences between IPv4 and IPv6 packets."""

    number: int
    client: str
    vip: str
    other_vip: str
    router: str
    backends: tuple[str, ...]
    icmp: int

    def ip(self, source: str, destination: str, **fields: Any) -> Packet:
        """An IP header."""
        layer = IP if self.number == 4 else IPv6
        return layer(src=source, dst=destination, **fields)

    def echo(self, source: str, destination: str, *, reply: bool, identifier: int) -> Packet:
        """An ICMP or ICMPv6 echo with some data."""
        header = self.ip(source, destination)
        data = Raw(b"are you there")
        if self.number == 4:
            return header / ICMP(type=0 if reply else 8, id=identifier, seq=7) / data
        kind = ICMPv6EchoReply if reply else ICMPv6EchoRequest
        return header / kind(id=identifier, seq=7) / data

    def syn(
        self, port: int = 80, *, client_port: int = 40000, vip: str = "", seq: int = 0
    ) -> bytes:
        """The client's first segment."""
        mss = [("MSS", 1460)]
        segment = TCP(sport=client_port, dport=port, flags="S", seq=seq, options=mss)
        return bytes(self.ip(self.client, vip or self.vip) / segment)

    def segment(
        self, flags: str, port: int = 80, *, client_port: int = 40000, seq: int = 0, ack: int = 0
    ) -> bytes:
        """A segment from the client to the VIP."""
        header = TCP(sport=client_port, dport=port, flags=flags, seq=seq, ack=ack)
        return bytes(self.ip(self.client, self.vip) / header)

    def answer(
        self,
        flags: str,
        backend: str,
        port: int = 80,
        client_port: int = 40000,
        *,
        seq: int = 0,
        ack: int = 0,
    ) -> bytes:
        """A segment from a backend to the client."""
        header = TCP(sport=port, dport=client_port, flags=flags, seq=seq, ack=ack)
        return bytes(self.ip(backend, self.client) / header)

    def datagram(self, port: int = 53, *, client_port: int = 40000) -> bytes:
        """A UDP datagram from the client to the VIP."""
        header = UDP(sport=client_port, dport=port)
        return bytes(self.ip(self.client, self.vip) / header / Raw(b"where is everybody"))


V4 = Family(
    number=4,
    client="192.168.0.100",
    vip="192.168.0.11",
    other_vip="192.168.0.12",
    router="172.16.5.1",
    backends=("10.0.0.1", "10.0.0.2", "10.0.0.3"),
    icmp=flow.ICMP,
)
V6 = Family(
    number=6,
    client="2001:db8::100",
    vip="2001:db8::11",
    other_vip="2001:db8::12",
    router="2001:db8:5::1",
    backends=("fd00:10::1", "fd00:10::2", "fd00:10::3"),
    icmp=flow.ICMP6,
)
FAMILIES = (V4, V6)


def backend(address: str, port: int = 0, weight: int = 1) -> Backend:
    """A ready backend, named by its address."""
    return Backend(address, packed(address), port, weight)


def bare_flow(number: int = 0) -> Flow:
    """A flow that is in no table."""
    key = number.to_bytes(12, "big")
    translation = Translation(packed(V4.vip), 80, backend(V4.backends[0]))
    return Flow(flow.TCP, key, key, translation, SYN_SENT, 0.0)


def service(
    family: Family,
    *,
    protocols: Sequence[int] = (flow.TCP,),
    ports: tuple[tuple[int, int], ...] = ALL_PORTS,
    backends: Sequence[Backend] = (),
    vip: str = "",
    strategy: str = "rr",
    affinity: Affinity | None = None,
    direct: bool = False,
    echo: bool = False,
    routed: bool = False,
    adopts: bool = True,
    udp_reply: float = 0.0,
    name: str = "web",
    route: RouteMatch | None = None,
    **life: Any,
) -> VirtualService:
    """A service of ``family``, by default over all three backends; ``life`` are further arguments
    of its pool.
    """
    pool = Pool(backends or [backend(address) for address in family.backends], **life)
    return VirtualService(
        name,
        packed(vip or family.vip),
        protocols,
        ports,
        pool,
        strategies.create(strategy),
        affinity=affinity,
        direct=direct,
        echo=echo,
        routed=routed,
        adopts=adopts,
        udp_reply=udp_reply,
        route=route,
    )


def nat(
    *services: VirtualService, bound: int = 1000, timeouts: FlowTimeouts | None = None
) -> NatDatapath:
    """A packet path over ``services``."""
    return NatDatapath(Balancer(ServiceMap(services)), FlowTable(timeouts or FlowTimeouts(), bound))


class Guarded(bytearray):
    """A buffer that may be read and written only within ``window``."""

    window = (0, 0)

    def _check(self, key: SupportsIndex | slice) -> None:
        first, last = self.window
        if isinstance(key, slice):
            inside = key.step is None and first <= key.start <= key.stop <= last
        else:
            inside = first <= key.__index__() < last
        assert inside, f"access to {key} outside of the packet, which is {first}:{last}"

    def __getitem__(self, key: Any) -> Any:
        """A byte or a slice of the packet."""
        self._check(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Replace a byte or a slice of the packet."""
        self._check(key)
        super().__setitem__(key, value)


def guarded(packet: bytes) -> bytearray:
    """``packet`` with ``FRINGE`` bytes on either side, which must not be accessed. The compiled
    packet path reads memory directly: there only writes are detected.
    """
    content = b"\xa5" * FRINGE + packet + b"\x5a" * FRINGE
    if COMPILED:
        return bytearray(content)
    buf = Guarded(content)
    buf.window = (FRINGE, FRINGE + len(packet))
    return buf


def run(
    path: NatDatapath, packet: bytes, checksum: int = COMPLETE, now: float = 0.0
) -> tuple[int, bytes]:
    """The verdict for ``packet``, and the packet as it is in the buffer afterwards."""
    buf = guarded(packet)
    verdict = path.handle(buf, FRINGE, len(packet), checksum, now)
    after = bytes(buf)
    assert len(after) == len(packet) + 2 * FRINGE, "the buffer has grown or shrunk"
    assert after[:FRINGE] == b"\xa5" * FRINGE, "bytes ahead of the packet changed"
    assert after[-FRINGE:] == b"\x5a" * FRINGE, "bytes behind the packet changed"
    return verdict, after[FRINGE:-FRINGE]


def header(packet: bytes) -> int:
    """The offset of the transport header of a packet without options or extension headers."""
    return 20 if packet[0] >> 4 == 4 else 40


def with_checksum(packet: bytes, protocol: int, value: int, transport: int = 0) -> bytes:
    """``packet`` with ``value`` for its transport checksum."""
    at = (transport or header(packet)) + {flow.TCP: 16, flow.UDP: 6, flow.ICMP6: 2}[protocol]
    return packet[:at] + value.to_bytes(2, "big") + packet[at + 2 :]


def unfinished(packet: bytes, protocol: int, transport: int = 0) -> bytes:
    """``packet`` as the kernel delivers it if the device was to compute the checksum
    (CHECKSUM_PARTIAL): the transport checksum is the pseudo-header's sum, not complemented.
    """
    size = len(packet) - (transport or header(packet))
    if packet[0] >> 4 == 4:
        pseudo = in4_pseudoheader(protocol, IP(packet), size)
    else:
        ip = IPv6(packet)
        pseudo = bytes(PseudoIPv6(src=ip.src, dst=ip.dst, nh=protocol, uplen=size))
    return with_checksum(packet, protocol, ~scapy_checksum(pseudo) & 0xFFFF, transport)


def finished(packet: bytes, protocol: int, transport: int = 0) -> bytes:
    """``packet`` as it leaves the kernel, which adds the sum of the transport part to the field."""
    value = scapy_checksum(packet[transport or header(packet) :])
    if protocol == flow.UDP and value == 0:
        value = 0xFFFF
    return with_checksum(packet, protocol, value, transport)

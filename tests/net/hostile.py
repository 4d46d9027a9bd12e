"""Sends packets that no honest client sends, for as long as it may; run in the client's namespace.

``hostile.py INTERFACE MAC VIP4 VIP6 PORT SECONDS`` puts them on the wire as they are, to the
hardware address ``MAC``, and prints how many they were.

Rules: what is sent is the same every time (a fixed seed), in rounds of every kind: cut, lying
about their length, with odd options and header chains, fragments that overlap or never end,
ICMP errors about flows that do not exist and about themselves, and noise.
"""

from __future__ import annotations

import random
import select
import socket
import sys
from collections.abc import Iterator
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Raw

LEAST = 2000  # packets
NOISE = random.Random(4)


def to4(vip: str, **fields: Any) -> Any:
    """An IPv4 header from somewhere in the client's network."""
    return IP(src=f"192.168.0.{NOISE.randrange(101, 250)}", dst=vip, **fields)


def to6(vip: str, **fields: Any) -> Any:
    """An IPv6 header from somewhere in the client's network."""
    return IPv6(src=f"2001:db8::{NOISE.randrange(0x1000, 0xFFFF):x}", dst=vip, **fields)


def lies4(vip: str, port: int) -> Iterator[Any]:
    """IPv4: lengths, versions, options, flags and checksums that are not true."""
    tcp = TCP(sport=NOISE.randrange(65536), dport=port)
    for flags in ("", "S", "SF", "SR", "A", "FPU", "SAFRPUEC"):
        yield to4(vip) / TCP(sport=NOISE.randrange(65536), dport=port, flags=flags)
    for size in (0, 19, 20, 39, 1000, 65535):
        yield to4(vip, len=size) / tcp
    for words in (0, 1, 4, 6, 15):
        yield to4(vip, ihl=words) / tcp
    yield to4(vip, version=7) / tcp
    yield to4(vip, options=[IPOption(b"\x07\x27\x04" + bytes(36))]) / tcp
    yield to4(vip, options=[IPOption(b"\x83\x07\x04\x0a\x00\x00\x01")]) / tcp
    yield to4(vip) / TCP(sport=port, dport=port, dataofs=1)
    yield to4(vip) / TCP(sport=port, dport=port, dataofs=15)
    yield to4(vip, chksum=1) / tcp
    yield to4(vip) / TCP(dport=port, chksum=1)
    for size in (0, 7, 8, 65535):
        yield to4(vip) / UDP(dport=port, len=size) / b"lies"
    yield to4(vip, flags="MF", frag=0) / bytes(8)
    yield to4(vip, flags="MF", frag=0, proto=17, id=7) / bytes(24)
    yield to4(vip, frag=1, proto=17, id=7) / bytes(200)
    yield to4(vip, frag=8189, proto=17) / bytes(1000)
    yield IP(src=vip, dst=vip) / tcp
    yield IP(src="10.0.0.1", dst=vip) / tcp
    yield IP(src="127.0.0.1", dst=vip) / tcp


def lies6(vip: str, port: int) -> Iterator[Any]:
    """IPv6: lengths, header chains and fragments that are not true."""
    tcp = TCP(sport=NOISE.randrange(65536), dport=port)
    for flags in ("", "S", "SF", "A", "SAFRPUEC"):
        yield to6(vip) / TCP(sport=NOISE.randrange(65536), dport=port, flags=flags)
    for size in (0, 1, 19, 20, 65535):
        yield to6(vip, plen=size) / tcp
    yield to6(vip) / IPv6ExtHdrHopByHop() / tcp
    chain = to6(vip)
    for _ in range(12):
        chain = chain / IPv6ExtHdrDestOpt()
    yield chain / tcp
    yield to6(vip) / IPv6ExtHdrDestOpt(len=255) / tcp
    yield to6(vip) / IPv6ExtHdrRouting(segleft=3) / tcp
    yield to6(vip) / IPv6ExtHdrFragment(m=0, offset=0) / tcp
    yield to6(vip) / IPv6ExtHdrFragment(m=1, offset=0, id=9) / bytes(16)
    yield to6(vip) / IPv6ExtHdrFragment(m=0, offset=1, id=9) / bytes(100)
    yield to6(vip, nh=59)
    yield to6(vip, nh=51) / bytes(9)
    yield IPv6(src=vip, dst=vip) / tcp
    yield IPv6(src="::1", dst=vip) / tcp


def errors(vip4: str, vip6: str, port: int) -> Iterator[Any]:
    """ICMP errors about nothing, about each other, and cut at every length."""
    strange4 = IP(src=vip4, dst="192.168.0.100") / TCP(sport=port, dport=1)
    for kind, code in ((3, 3), (3, 4), (11, 0), (12, 0)):
        yield to4(vip4) / ICMP(type=kind, code=code, nexthopmtu=0) / strange4
        for size in (0, 4, 19, 20, 24, 27):
            yield to4(vip4) / ICMP(type=kind, code=code) / bytes(strange4)[:size]
    yield to4(vip4) / ICMP(type=3) / IP(src=vip4) / ICMP(type=3) / IP(src=vip4) / TCP()
    strange6 = IPv6(src=vip6, dst="2001:db8::100") / TCP(sport=port, dport=1)
    for error in (ICMPv6PacketTooBig(mtu=0), ICMPv6DestUnreach(code=4)):
        yield to6(vip6) / error / strange6
        for size in (0, 4, 39, 40, 44, 47):
            yield to6(vip6) / error / bytes(strange6)[:size]
    yield to6(vip6) / ICMPv6PacketTooBig() / IPv6(src=vip6) / ICMPv6PacketTooBig() / IPv6()
    yield to4(vip4) / ICMP(type=8)
    yield to6(vip6) / ICMPv6EchoRequest()


def noise(vip4: str, vip6: str) -> Iterator[Any]:
    """Every protocol with random bytes, from none to a frame's worth."""
    for protocol in (1, 2, 4, 6, 17, 41, 47, 50, 58, 132, 255):
        for size in (0, 1, 3, 8, 13, 20, 64, 1400):
            yield to4(vip4, proto=protocol) / Raw(NOISE.randbytes(size))
            yield to6(vip6, nh=protocol) / Raw(NOISE.randbytes(size))


def frames(vip4: str, vip6: str, port: int) -> list[tuple[int, bytes]]:
    """One round: (Ethernet type, packet), some of them cut once more."""
    made = [
        *lies4(vip4, port),
        *lies6(vip6, port),
        *errors(vip4, vip6, port),
        *noise(vip4, vip6),
    ]
    kinds = [(0x86DD if isinstance(packet, IPv6) else 0x0800, bytes(packet)) for packet in made]
    return kinds + [(kind, data[: NOISE.randrange(1, len(data))]) for kind, data in kinds]


def main() -> None:
    """Send round after round, ``LEAST`` packets and until there is a line of input."""
    interface, mac, vip4, vip6, port = sys.argv[1:]
    destination = bytes.fromhex(mac.replace(":", ""))
    count = 0
    packets = frames(vip4, vip6, int(port))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((interface, 0))
        source = wire.getsockname()[4]
        while count < LEAST or not select.select([sys.stdin], [], [], 0.02)[0]:
            for kind, packet in packets:
                if len(packet) <= 1500:
                    wire.send(destination + source + kind.to_bytes(2, "big") + packet)
                    count += 1
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main()

"""A flood of segments or datagrams at the speed of a C program; run as a program in a namespace.

::

    python bench/syns.py DEVICE HARDWARE VIP PORT COUNT RATE [tcp|stray|udp [NETWORK]]

Sends COUNT SYN segments (tcp), segments of no connection (stray) or datagrams (udp) to VIP and
PORT, out of DEVICE to the hardware address HARDWARE, RATE a second (0: at full speed), each from
another address of NETWORK and another port, and prints how many were sent in how many seconds;
SIGTERM ends it early. The packets are built first, then it prints ``sending``; 64 packets are sent
per system call (sendmmsg on a packet socket), and repeated ones have another port.
Rules: standard library only; at most ``MOST`` packets are sent.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import json
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence

MOST = 5_000_000
#: networks for benchmarks (RFC 2544) and for documentation (RFC 3849)
NETWORKS = {4: "198.18.0.0/15", 6: "2001:db8:f::/64"}
#: most packets that are built; further ones repeat them from other ports
DIFFERENT = 32768
_AT_ONCE = 64
_SENDER = bytes((2, 0, 0, 0, 0, 1))  # locally administered: a bridge drops frames from 0
_STEP = 7919  # a prime: every port comes before one comes again
_PAIR = struct.Struct("!H").unpack_from
_PUT = struct.Struct("!H").pack_into


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_Vector)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


def checksum(data: bytes) -> int:
    """The Internet checksum of ``data`` (RFC 1071), whose length is even."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    return 0xFFFF - sum(words) % 65535


def syn(source: bytes, vip: bytes, sport: int, port: int, noise: int) -> bytes:
    """An IP packet with a SYN segment and a maximum segment size option; ``noise`` is its sequence
    number.
    """
    tcp = struct.pack("!HHIIBBHHHBBH", sport, port, noise, 0, 6 << 4, 2, 64240, 0, 0, 2, 4, 1460)
    return _packet(source, vip, 6, tcp, 16)


def stray(source: bytes, vip: bytes, sport: int, port: int, noise: int) -> bytes:
    """An IP packet with an ACK segment of no connection; ``noise`` is its sequence number."""
    tcp = struct.pack("!HHIIBBHHH", sport, port, noise, noise, 5 << 4, 0x10, 64240, 0, 0)
    return _packet(source, vip, 6, tcp, 16)


def datagram(source: bytes, vip: bytes, sport: int, port: int, noise: int) -> bytes:
    """An IP packet with a datagram that has ``noise`` and eight bytes more."""
    udp = struct.pack("!HHHHII", sport, port, 20, 0, noise, 0) + b"word"
    return _packet(source, vip, 17, udp, 6)


def _packet(source: bytes, vip: bytes, protocol: int, inner: bytes, at: int) -> bytes:
    """An IP packet with ``inner``, whose checksum is at ``at``."""
    if len(vip) == 4:
        pseudo = source + vip + struct.pack("!BBH", 0, protocol, len(inner))
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(inner), 0, 0, 64, protocol, 0)
        head = head[:10] + checksum(head + source + vip).to_bytes(2, "big") + source + vip
    else:
        pseudo = source + vip + struct.pack("!II", len(inner), protocol)
        head = struct.pack("!IHBB", 6 << 28, len(inner), protocol, 64) + source + vip
    value = checksum(pseudo + inner) or 0xFFFF
    return head + inner[:at] + value.to_bytes(2, "big") + inner[at + 2 :]


#: the kinds of floods: the function that builds a packet, and the offset of its variable field
KINDS = {"tcp": (syn, 6), "stray": (stray, 6), "udp": (datagram, 10)}


def frames(
    hardware: bytes, vip: str, port: int, network: str, count: int, kind: str = "tcp"
) -> list[bytes]:
    """``count`` frames to ``hardware``, from random addresses of ``network`` and random ports."""
    make, _ = KINDS[kind]
    noise = random.Random(count)  # the same flood every time
    to = ipaddress.ip_address(vip)
    sources = ipaddress.ip_network(network)
    head = hardware + _SENDER + (0x0800 if to.version == 4 else 0x86DD).to_bytes(2, "big")
    most = sources.num_addresses - 1
    return [
        head
        + make(
            sources[noise.randint(1, most)].packed,
            to.packed,
            noise.randrange(1024, 65536),
            port,
            noise.getrandbits(32),
        )
        for _ in range(count)
    ]


def change_port(arena: bytearray, header: int, noise: int) -> None:
    """Change the source port of the packet in ``arena`` whose transport header is at ``header``.

    The checksum stays valid: the 16 bits at ``noise`` of the header are decreased by as much, in
    one's complement.
    """
    sport, other = _PAIR(arena, header)[0], _PAIR(arena, header + noise)[0]
    port = 1024 + (sport - 1024 + _STEP) % (65536 - 1024)
    _PUT(arena, header, port)
    _PUT(arena, header + noise, (other + sport - port) % 65535)


def flood(
    device: str,
    made: list[bytes],
    count: int,
    rate: int,
    kind: str = "tcp",
    ended: Sequence[int] = (),
) -> tuple[int, float]:
    """Send ``count`` packets, the frames ``made`` and then the same from other ports, ``rate`` a
    second, until there is something in ``ended``; how many were sent, in how many seconds.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    arena = bytearray(b"".join(made))
    length = len(made[0])  # all have the same
    header = 14 + (20 if made[0][12] == 8 else 40)
    noise = KINDS[kind][1]
    base = ctypes.addressof((ctypes.c_char * len(arena)).from_buffer(arena))
    vectors = (_Vector * len(made))()
    messages = (_Message * len(made))()
    for number, (vector, message) in enumerate(zip(vectors, messages, strict=True)):
        vector.base, vector.length = base + number * length, length
        message.vectors, message.count = ctypes.pointer(vector), 1
    size = ctypes.sizeof(_Message)
    first = ctypes.addressof(messages)
    sent = at = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        begun = time.monotonic()
        while sent < count and not ended:
            room = min(_AT_ONCE, len(made) - at, count - sent)
            if sent >= len(made):
                for number in range(at, at + room):
                    change_port(arena, number * length + header, noise)
            got = libc.sendmmsg(wire.fileno(), ctypes.c_void_p(first + at * size), room, 0)
            if got < 0 and ctypes.get_errno() not in (errno.ENOBUFS, errno.EAGAIN, errno.EINTR):
                raise OSError(ctypes.get_errno(), "sendmmsg")
            sent += max(got, 0)
            at = (at + max(got, 0)) % len(made)
            if rate and (ahead := sent / rate - (time.monotonic() - begun)) > 0:
                time.sleep(ahead)
        return sent, time.monotonic() - begun


def main(
    device: str, hardware: str, vip: str, port: str, count: str, rate: str, *more: str
) -> None:
    """See the head of the file."""
    wanted = min(int(count), MOST)
    kind = more[0] if more else "tcp"
    network = more[1] if more[1:] else NETWORKS[ipaddress.ip_address(vip).version]
    to = bytes.fromhex(hardware.replace(":", ""))
    made = frames(to, vip, int(port), network, min(wanted, DIFFERENT), kind)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    sys.stdout.write("sending\n")
    sys.stdout.flush()
    sent, seconds = flood(device, made, wanted, int(rate), kind, ended)
    sys.stdout.write(f"{json.dumps({'sent': sent, 'seconds': seconds})}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

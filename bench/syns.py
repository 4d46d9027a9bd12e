"""A flood of SYNs, as fast as a program in C would send it; run as a program in a namespace.

::

    python bench/syns.py DEVICE HARDWARE VIP PORT COUNT RATE [NETWORK]

Sends COUNT segments with SYN alone to VIP and PORT, out of DEVICE to the hardware address HARDWARE,
RATE a second (0: as fast as it goes), each from another address of NETWORK and another port, and
prints how many were sent and in how many seconds. They are made ahead of time and go out 64 with
one system call (sendmmsg on a packet socket). Rules: standard library only; at most ``MOST``
segments are sent, whatever is asked for.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import random
import socket
import struct
import sys
import time

MOST = 5_000_000
#: networks for benchmarks (RFC 2544) and for documentation (RFC 3849)
NETWORKS = {4: "198.18.0.0/15", 6: "2001:db8:f::/64"}
#: different segments; more than that many repeat
DIFFERENT = 32768
_AT_ONCE = 64


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


def syn(source: bytes, vip: bytes, sport: int, port: int, sequence: int) -> bytes:
    """An IP packet with a segment that has SYN alone and a maximum segment size."""
    tcp = struct.pack("!HHIIBBHHHBBH", sport, port, sequence, 0, 6 << 4, 2, 64240, 0, 0, 2, 4, 1460)
    if len(vip) == 4:
        pseudo = source + vip + struct.pack("!BBH", 0, 6, len(tcp))
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), sequence & 0xFFFF, 0, 64, 6, 0)
        head = head[:10] + checksum(head + source + vip).to_bytes(2, "big") + source + vip
    else:
        pseudo = source + vip + struct.pack("!II", len(tcp), 6)
        head = struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + source + vip
    return head + tcp[:16] + checksum(pseudo + tcp).to_bytes(2, "big") + tcp[18:]


def frames(hardware: bytes, vip: str, port: int, network: str, count: int) -> list[bytes]:
    """``count`` frames to ``hardware``, from random addresses of ``network`` and random ports."""
    noise = random.Random(count)  # the same flood every time
    to = ipaddress.ip_address(vip)
    sources = ipaddress.ip_network(network)
    head = hardware + bytes(6) + (0x0800 if to.version == 4 else 0x86DD).to_bytes(2, "big")
    most = sources.num_addresses - 1
    return [
        head
        + syn(
            sources[noise.randint(1, most)].packed,
            to.packed,
            noise.randrange(1024, 65536),
            port,
            noise.getrandbits(32),
        )
        for _ in range(count)
    ]


def flood(device: str, made: list[bytes], count: int, rate: int) -> tuple[int, float]:
    """Send ``count`` of the frames ``made``, again and again, ``rate`` a second; how many were
    sent, in how many seconds.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    buffers = [ctypes.create_string_buffer(frame, len(frame)) for frame in made]
    vectors = (_Vector * len(made))()
    messages = (_Message * len(made))()
    for vector, message, buffer in zip(vectors, messages, buffers, strict=True):
        vector.base, vector.length = ctypes.addressof(buffer), len(buffer)
        message.vectors, message.count = ctypes.pointer(vector), 1
    size = ctypes.sizeof(_Message)
    first = ctypes.addressof(messages)
    sent = at = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((device, 0))
        begun = time.monotonic()
        while sent < count:
            room = min(_AT_ONCE, len(made) - at, count - sent)
            got = libc.sendmmsg(wire.fileno(), ctypes.c_void_p(first + at * size), room, 0)
            if got < 0:
                raise OSError(ctypes.get_errno(), "sendmmsg")
            sent += got
            at = (at + got) % len(made)
            if rate and (ahead := sent / rate - (time.monotonic() - begun)) > 0:
                time.sleep(ahead)
        return sent, time.monotonic() - begun


def main(
    device: str, hardware: str, vip: str, port: str, count: str, rate: str, *more: str
) -> None:
    """See the head of the file."""
    wanted = min(int(count), MOST)
    network = more[0] if more else NETWORKS[ipaddress.ip_address(vip).version]
    to = bytes.fromhex(hardware.replace(":", ""))
    made = frames(to, vip, int(port), network, min(wanted, DIFFERENT))
    sent, seconds = flood(device, made, wanted, int(rate))
    sys.stdout.write(f"{json.dumps({'sent': sent, 'seconds': seconds})}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

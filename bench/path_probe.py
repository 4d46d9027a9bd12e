"""Measures the CPU time of a worker's packet path for whole connections; no network, no root.

``python -m bench.path_probe nat|dsr [CONNECTIONS]`` prints microseconds a connection: its packets
as a worker gets them, from the SYN to the last ACK, with one request and one response. With dsr
these are the client's packets only. The cost of the loop itself is subtracted.

Rules: as in a worker, Python's cyclic collector is off. Time is CPU time of this thread.
"""

from __future__ import annotations

import gc
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from bench.core_probe import VIP
from paraglider.core.packet import ACK, FIN, SYN
from paraglider.forward.load import load
from paraglider.forward.worker_datapath import WorkerDatapath, build

CLIENT = "192.168.0.100"
BACKENDS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
PORT = 80
FIRST_PORT = 10_000
MOST = 50_000
REQUEST, RESPONSE = 80, 150  # bytes

Handle = Callable[[bytearray, int, int, int, float], int]


def main() -> None:
    """Parse the arguments, measure, print."""
    method, count = sys.argv[1], min(int((*sys.argv, "20000")[2]), MOST)
    path = packet_path(method)
    connections = [packets(backend, answers=method == "nat") for backend in BACKENDS]
    gc.collect()
    gc.freeze()
    gc.disable()
    used = run(path.handle, connections, count) - run(_nothing, connections, count)
    sys.stdout.write(f"{method}: {used / count:.2f} us a connection\n")


def packet_path(method: str) -> WorkerDatapath:
    """A worker's packet path with one service of the forward method ``method``."""
    private = {"interface": "eth1", "gateway": ["10.255.255.254/8"]}
    service = {"name": "web", "vip": f"{VIP}/24", "protocol": "tcp", "ports": PORT}
    service |= {"forward": method, "strategy": "rr", "backends": list(BACKENDS)}
    document = {
        "flows": {"max": 2 * MOST},
        "network": {"public": {"interface": "eth0"}, "private": private},
        "services": [service],
    }
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "paraglider.conf"
        file.write_text(yaml.safe_dump(document))
        return build(load(file), 0, 0.0)


def packets(backend: str, *, answers: bool) -> list[tuple[bytes, int]]:
    """The packets of a connection to ``backend``, each with the place of the client's port;
    without ``answers`` those of the client.
    """
    ask, reply = 101 + REQUEST, 901 + RESPONSE
    order = (
        (True, 100, 0, SYN, 0),
        (False, 900, 101, SYN | ACK, 0),
        (True, 101, 901, ACK, 0),
        (True, 101, 901, ACK, REQUEST),
        (False, 901, ask, ACK, 0),
        (False, 901, ask, ACK, RESPONSE),
        (True, ask, reply, ACK, 0),
        (False, reply, ask, FIN | ACK, 0),
        (True, ask, reply + 1, FIN | ACK, 0),
        (False, reply + 1, ask + 1, ACK, 0),
    )
    return [
        (_segment(backend, *fields), 20 if fields[0] else 22)
        for fields in order
        if fields[0] or answers
    ]


def run(handle: Handle, connections: Sequence[Sequence[tuple[bytes, int]]], count: int) -> float:
    """Call ``handle`` for the packets of ``count`` connections; returns the CPU time in µs."""
    buf = bytearray(max(len(packet) for packet, _ in connections[0]))
    begin = time.thread_time_ns()
    for number in range(count):
        port = (FIRST_PORT + number).to_bytes(2, "big")
        now = number / 10_000
        for packet, at in connections[number % len(connections)]:
            buf[: len(packet)] = packet
            buf[at : at + 2] = port
            handle(buf, 0, len(packet), 0, now)
    return (time.thread_time_ns() - begin) / 1000


def _segment(
    backend: str, asks: bool, sequence: int, acknowledged: int, flags: int, size: int
) -> bytes:
    """A segment with ``size`` bytes of data, without checksums: from the client to the VIP if it
    ``asks``, else from the backend to the client.
    """
    ends = (CLIENT, VIP) if asks else (backend, CLIENT)
    ports = (0, PORT) if asks else (PORT, 0)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40 + size, 1, 0x4000, 64, socket.IPPROTO_TCP, 0)
    tcp = struct.pack("!HHIIBBHHH", *ports, sequence, acknowledged, 0x50, flags, 64_000, 0, 0)
    return head + b"".join(map(socket.inet_aton, ends)) + tcp + bytes(size)


def _nothing(_buf: bytearray, _at: int, _length: int, _checksum: int, _now: float) -> int:
    """A packet path that does nothing, to measure the loop."""
    return 0


if __name__ == "__main__":
    main()

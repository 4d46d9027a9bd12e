"""Forged segments, and a connection that prints its sequence numbers.

::

    forging.py hold ADDRESS PORT            connects to ``peer.py serve``, uses the connection, and
                                            prints its port and sequence numbers; after a line of
                                            input uses it again, and prints what came of it
    forging.py half ADDRESS PORT            connects, shuts down its side while the server is still
                                            sending, prints its port
    forging.py send INTERFACE MAC SOURCE PORT DESTINATION PORT SEQ ACK FLAGS...
                                            one segment per word of FLAGS (scapy's letters)
    forging.py ask INTERFACE MAC SOURCE PORT DESTINATION PORT FLAGS...
                                            a segment of no connection, again and again until it is
                                            answered; prints by what, and after how many; the next
                                            of FLAGS from the next port

Rules: run as root in a namespace; the sequence numbers are the kernel's (TCP_REPAIR, tcp(7)), and
no NAT changes them. One JSON object a line is printed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.sendrecv import sendp, srp1

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21  # linux/tcp.h
RECEIVED, SENT = 1, 2
OFF = -1  # and send nothing for it
TIMEOUT = 20.0
TRIES = 100


def numbers(sock: socket.socket) -> dict[str, int]:
    """The connection's port, its next sequence number and the expected one."""
    found = {"port": sock.getsockname()[1]}
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    for name, queue in (("seq", SENT), ("ack", RECEIVED)):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        value = sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ)
        found[name] = value % 2**32
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF)
    return found


def use(sock: socket.socket) -> int:
    """Request three bytes; returns how many arrive."""
    sock.sendall(b"down 3\n")
    data = b""
    while len(data) < 3 and (more := sock.recv(3)):
        data += more
    return len(data)


def say(result: Any) -> None:
    """Print one line of JSON."""
    sys.stdout.write(f"{json.dumps(result)}\n")
    sys.stdout.flush()


def hold(address: str, port: str) -> None:
    """Use a connection now and once more."""
    with socket.create_connection((address, int(port)), TIMEOUT) as sock:
        use(sock)
        say(numbers(sock))
        sys.stdin.readline()
        try:
            say({"arrived": use(sock)})
        except OSError as error:
            say({"error": type(error).__name__})


def half(address: str, port: str) -> None:
    """Shut down writing, and wait."""
    with socket.create_connection((address, int(port)), TIMEOUT) as sock:
        sock.sendall(b"down 50000000\n")
        sock.shutdown(socket.SHUT_WR)
        say({"port": sock.getsockname()[1]})
        sys.stdin.readline()


def segment(mac: str, ends: tuple[str, ...], flags: str, seq: int, ack: int) -> Any:
    """An Ethernet frame."""
    source, sport, destination, dport = ends
    ip = (IPv6 if ":" in source else IP)(src=source, dst=destination)
    tcp = TCP(sport=int(sport), dport=int(dport), flags=flags, seq=seq, ack=ack, window=1000)
    return Ether(dst=mac) / ip / tcp / (b"x" if "P" in flags else b"")


def send(interface: str, mac: str, *rest: str) -> None:
    """Put segments on the wire."""
    *ends, seq, ack = rest[:6]
    for flags in rest[6:]:
        made = segment(mac, tuple(ends), flags, int(seq), int(ack))
        sendp(made, iface=interface, verbose=False)
    say({"sent": len(rest) - 6})


def ask(interface: str, mac: str, *rest: str) -> None:
    """Try until something comes."""
    source, port, *end = rest[:4]
    say(
        [one(interface, mac, (source, str(int(port) + n), *end), f) for n, f in enumerate(rest[4:])]
    )


def one(interface: str, mac: str, ends: tuple[str, ...], flags: str) -> Any:
    """The first answer to a segment."""
    made = segment(mac, ends, flags, 1000, 2000)
    for tries in range(1, TRIES + 1):
        with contextlib.suppress(TypeError):  # None
            answer = srp1(made, iface=interface, timeout=0.3, verbose=False)[TCP]
            return {"flags": str(answer.flags), "seq": answer.seq, "tries": tries}
    return {"error": "no answer"}


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])

"""Forged segments, and a connection that prints its sequence numbers.

Importable by its name (``conftest`` puts this directory on ``sys.path``): ``send`` and ``ask``,
which the test's own process uses. And a program::

    forging.py hold ADDRESS PORT            connects to ``peer.py serve``, uses the connection, and
                                            prints its port and sequence numbers; after a line of
                                            input uses it again, and prints what came of it
    forging.py half ADDRESS PORT            connects, shuts down its side while the server is still
                                            sending, prints its port

Rules: run as root in a namespace; the sequence numbers are the kernel's (TCP_REPAIR, tcp(7)), and
no NAT changes them. One JSON object a line is printed. The program uses the standard library only.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paraglider.lab.namespace import Namespace

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21  # linux/tcp.h
RECEIVED, SENT = 1, 2
OFF = -1  # and send nothing for it
TIMEOUT = 60.0
TRIES = 100
AGAIN = 0.3  # seconds until a segment is sent again
ETH_P_ALL, PACKET_OUTGOING = 3, 4  # linux/if_ether.h, linux/if_packet.h


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


def segment(mac: str, ends: Sequence[Any], flags: str, seq: int, ack: int) -> bytes:
    """An Ethernet frame; ``ends`` are address and port of the source and of the destination."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    source, sport, destination, dport = ends
    ip = (IPv6 if ":" in source else IP)(src=source, dst=destination)
    tcp = TCP(sport=int(sport), dport=int(dport), flags=flags, seq=seq, ack=ack, window=1000)
    kind = 0x86DD if ":" in source else 0x800
    frame = Ether(dst=mac, src="02:00:00:00:00:01", type=kind) / ip / tcp
    return bytes(frame / (b"x" if "P" in flags else b""))


def wire(where: Namespace) -> socket.socket:
    """A socket for all frames of ``eth0``."""
    with where.entered():
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind(("eth0", ETH_P_ALL))
    return made


def send(
    where: Namespace, mac: str, ends: Sequence[Any], numbers: Sequence[int], flags: str
) -> None:
    """Put a segment on the wire for every word of ``flags`` (scapy's letters), with the ``numbers``
    SEQ and ACK.
    """
    with wire(where) as sock:
        for each in flags.split():
            sock.send(segment(mac, ends, each, *numbers))


def ask(where: Namespace, mac: str, ends: Sequence[Any], flags: str) -> dict[str, Any]:
    """The first answer to a segment of no connection, and after how many it came."""
    made = segment(mac, ends, flags, 1000, 2000)
    with wire(where) as sock:
        for tries in range(1, TRIES + 1):
            sock.send(made)
            until = time.monotonic() + AGAIN
            while (left := until - time.monotonic()) > 0 and select.select([sock], [], [], left)[0]:
                frame, address = sock.recvfrom(2048)
                found = answer(frame, ends) if address[2] != PACKET_OUTGOING else None
                if found is not None:
                    return {"flags": str(found.flags), "seq": found.seq, "tries": tries}
    return {"error": "no answer"}


def answer(frame: bytes, ends: Sequence[Any]) -> Any:
    """The TCP header of a frame from the destination to the source, or None."""
    from scapy.layers.inet import TCP
    from scapy.layers.l2 import Ether

    tcp = Ether(frame).getlayer(TCP)
    return tcp if tcp is not None and (tcp.dport, tcp.sport) == (ends[1], ends[3]) else None


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])

"""A client of the lab: opens connections one after the other and prints which backend answered.

``python -m paraglider.lab.client tcp ADDRESS PORT COUNT`` (or ``udp``, or ``ping`` with port 0)
prints one JSON object a try: ``{"answer": "backend2"}`` or ``{"error": "timed out"}``; a fifth
argument is how many seconds a try may take, a sixth how many are between two tries, a seventh the
port that the first try of ``udp`` is sent from; those after it have the next ports. With
``download`` COUNT is a number of bytes, downloaded over one connection: the first half at once, the
second half after a line on standard input. Each half is one line of output, ``{"answer":
"backend2", "bytes": 500}``.

Rules: standard library only. Every try is a new flow on a new socket. An echo reply does not name
the backend, so its answer is the empty string.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator

TIMEOUT = 3.0  # seconds a single try may take
DOWNLOAD_TIMEOUT = 60.0  # seconds without a byte that end a download

#: datagram sockets stay open, because the kernel could reuse a port that still has a flow
_kept: list[socket.socket] = []


def tcp(address: str, port: int, timeout: float = TIMEOUT, _own: int = 0) -> str:
    """The backend's name, from the body of the HTTP answer."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read(200).decode().strip()
    finally:
        connection.close()


def udp(address: str, port: int, timeout: float = TIMEOUT, own: int = 0) -> str:
    """The backend's name, the first word of the UDP echo server's answer to a datagram from the
    port ``own``; 0: the kernel chooses it.
    """
    sock = _datagram_socket(address, 0)
    sock.settimeout(timeout)
    sock.bind(("", own))
    sock.connect((address, port))
    sock.send(b"who")
    return sock.recv(2048).decode().partition(" ")[0]


def ping(address: str, _port: int, timeout: float = TIMEOUT, _own: int = 0) -> str:
    """Wait for the echo reply; returns an empty string. The kernel matches the identifier."""
    version6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if version6 else socket.IPPROTO_ICMP
    sock = _datagram_socket(address, protocol)
    sock.settimeout(timeout)
    sock.connect((address, 0))
    sock.send(bytes([128 if version6 else 8, 0, 0, 0, 0, 0, 0, 1]) + b"who")
    sock.recv(2048)
    return ""


TRIES: dict[str, Callable[[str, int, float, int], str]] = {"tcp": tcp, "udp": udp, "ping": ping}


def download(address: str, port: int, size: int) -> Iterator[tuple[str, int]]:
    """Download ``size`` bytes in two halves; yields the backend's name and the bytes so far."""
    connection = http.client.HTTPConnection(address, port, timeout=DOWNLOAD_TIMEOUT)
    try:
        connection.request("GET", f"/bytes/{size}")
        answer = connection.getresponse()
        got = 0
        for part in (size // 2, size - size // 2):
            got += len(answer.read(part))
            yield answer.headers["Server"], got
    finally:
        connection.close()


def main() -> None:
    """Parse the arguments, try, print."""
    protocol, address, port, count, *rest = sys.argv[1:]
    if protocol == "download":
        for name, got in download(address, int(port), int(count)):
            print(json.dumps({"answer": name, "bytes": got}), flush=True)
            sys.stdin.readline()
        return
    attempt = TRIES[protocol]
    timeout = float(rest[0]) if rest else TIMEOUT
    pause = float(rest[1]) if len(rest) > 1 else 0.0
    first = int(rest[2]) if len(rest) > 2 else 0
    for number in range(int(count)):
        own = first + number if first else 0
        try:
            result = {"answer": attempt(address, int(port), timeout, own)}
        except (OSError, http.client.HTTPException) as error:
            result = {"error": str(error) or type(error).__name__}
        print(json.dumps(result), flush=True)
        time.sleep(pause)


def _datagram_socket(address: str, protocol: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM, protocol)
    sock.settimeout(TIMEOUT)
    _kept.append(sock)
    return sock


if __name__ == "__main__":
    main()

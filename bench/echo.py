"""A server that sends every datagram back; run as a program.

``python bench/echo.py ADDRESS PORT``: bound to the address, so that answers leave from it.
Rules: standard library only; as little as can be done for a datagram, for it is met by floods.
"""

from __future__ import annotations

import contextlib
import socket
import sys


def serve(sock: socket.socket, most: int = -1) -> None:
    """Send back what comes to ``sock``, ``most`` datagrams, -1 for as long as it is open."""
    while most:
        data, client = sock.recvfrom(2048)
        with contextlib.suppress(OSError):  # nobody there
            sock.sendto(data, client)
        most -= 1


if __name__ == "__main__":
    address, port = sys.argv[1:]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        bound.bind((address, int(port)))
        serve(bound)

"""A server that sends every datagram back; run as a program.

``python bench/echo.py ADDRESS PORT``: bound to the address, so that answers leave from it.
Rules: standard library only; the least work for a datagram, since floods reach it.
"""

from __future__ import annotations

import contextlib
import socket
import sys


def serve(sock: socket.socket, most: int = -1) -> None:
    """Echo datagrams on ``sock``, ``most`` of them, or with -1 until it is closed."""
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

"""Holds HTTP connections open, for tests of flows: holder.py ADDRESS PORT COUNT.

For every line on standard input it sends one request over each connection and prints the results as
a JSON list: the answer's body, or the name of the error. A failed connection stays failed.
"""

from __future__ import annotations

import errno
import json
import socket
import sys


def ask(connection: socket.socket) -> str:
    """One request: the body of the answer, or the error."""
    try:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = connection.recv(4096)
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return answer.rpartition(b"\r\n\r\n")[2].decode().strip() or "closed"


def main() -> None:
    """Connect, then answer until the input ends."""
    address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    held = [socket.create_connection((address, port), 60) for _ in range(count)]
    for one in held:
        one.settimeout(60)
    for _ in sys.stdin:
        sys.stdout.write(json.dumps([ask(one) for one in held]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

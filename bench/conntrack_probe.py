"""Lists and removes 50,000 connections by our own requests and by pyroute2's NFCTSocket.

``unshare -n .venv/bin/python -m bench.conntrack_probe [COUNT]``, as root: the connections are
created in a separate namespace. Prints milliseconds of CPU for each; docs/architecture.md has the
decision.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pyroute2 import NFCTSocket

from paraglider.netfilter import connections, conntrack
from paraglider.netfilter.nfnetlink import NLM_F_ACK, attribute, message, send_requests
from paraglider.netfilter.rules.marks import BASE, MASK

COUNT = 50_000
MARK = BASE | 1
CLIENTS = 10 << 24  # 10.0.0.0
PORTS = 40_000  # of a client
VIP = socket.inet_aton("192.0.2.1")
_CREATE = 0x600  # NLM_F_CREATE | NLM_F_EXCL
_NESTED = 0x8000
_CONFIRMED = 8  # IPS_CONFIRMED
_TABLE = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def fill(count: int) -> None:
    """Make ``count`` UDP connections with a mark of ours."""
    requests = []
    for number in range(count):
        client = struct.pack("!I", CLIENTS + 1 + number // PORTS)
        port = 1024 + number % PORTS
        body = _tuple(1, client, VIP, port, 80) + _tuple(2, VIP, client, 80, port)
        for kind, value in ((7, 3600), (8, MARK), (3, _CONFIRMED)):  # timeout, mark, status
            body += attribute(kind, struct.pack("!I", value))
        requests.append(message(1, 0, socket.AF_INET, body, NLM_F_ACK | _CREATE))
    send_requests(requests)


def _tuple(kind: int, source: bytes, target: bytes, port: int, target_port: int) -> bytes:
    ends = attribute(1, source) + attribute(2, target)
    ports = attribute(2, struct.pack("!H", port)) + attribute(3, struct.pack("!H", target_port))
    protocol = attribute(1, bytes([socket.IPPROTO_UDP])) + ports
    return attribute(
        kind | _NESTED, attribute(1 | _NESTED, ends) + attribute(2 | _NESTED, protocol)
    )


def measure(name: str, call: Callable[[], object], expected: int) -> None:
    """Print what ``call`` costs; raises ``AssertionError`` when another number is left or found."""
    begin = time.thread_time()
    found = call()
    cost = (time.thread_time() - begin) * 1000
    seen = found if isinstance(found, int) else int(_TABLE.read_text())
    if seen != expected:
        raise AssertionError(f"{name}: {seen} connections instead of {expected}")
    sys.stdout.write(f"{name}: {cost:.0f} ms\n")


def main() -> None:
    """Fill, list, forget; twice."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with NFCTSocket() as nfct:
        fill(count)
        measure("list, ours, marks", lambda: sum(1 for _ in connections.dump()), count)
        measure("list, ours, whole", lambda: sum(1 for _ in conntrack.entries()), count)
        listed = lambda: sum(1 for _ in nfct.dump(mark=BASE, mark_mask=MASK))  # noqa: E731
        measure("list, pyroute2", listed, count)
        measure("forget, ours", lambda: conntrack.Conntrack().forget([MARK]), 0)
        fill(count)
        measure("forget, pyroute2", lambda: nfct.flush(mark=MARK, mark_mask=0xFFFFFFFF), 0)


if __name__ == "__main__":
    main()

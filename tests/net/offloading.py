"""What the end-to-end tests of ``forward: offload`` share: its services, its daemon, a client."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import Any

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, Topology, backend_address

EVEN = {"backend1": 10, "backend2": 10, "backend3": 10}
FAMILIES = [4, 6]


def service(family: int, **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, offloaded."""
    prefix = 24 if family == 4 else 64
    return {
        "name": f"web{family}",
        "vip": f"{VIP[family]}/{prefix}",
        "protocol": "tcp",
        "ports": 80,
        "forward": "offload",
        "backends": [backend_address(family, number) for number in (1, 2, 3)],
        **changes,
    }


def url(family: int, path: str = "/", port: int = 80) -> str:
    """A URL on the VIP."""
    host = VIP[family] if family == 4 else f"[{VIP[family]}]"
    return f"http://{host}:{port}{path}"


def seen_by_python(net: Topology) -> int:
    """Packets that the kernel has queued so far, all queues together."""
    table = net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    return sum(int(line.split()[7]) for line in table.splitlines())


def await_log(balancer: LabBalancer, words: str, count: int = 1) -> None:
    """Wait until the log has ``words`` ``count`` times."""
    deadline = time.monotonic() + 20
    while len(re.findall(words, balancer.log())) < count:
        assert time.monotonic() < deadline, balancer.log()
        time.sleep(0.05)


class Held:
    """A connection of the client that stays open and asks again and again."""

    SCRIPT = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
for _ in sys.stdin:
    try:
        connection.request("GET", "/")
        print(connection.getresponse().read().decode().strip(), flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
        connection.close()
"""

    def __init__(self, net: Topology, address: str, port: int = 80) -> None:
        self._process = net.client.popen(
            [sys.executable, "-c", self.SCRIPT, address, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self) -> str:
        """The answer to one more request, or what went wrong; then the next opens anew."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().decode().strip()

    def end(self) -> None:
        """Close the connection."""
        self._process.communicate(timeout=10)

"""Helpers of the end-to-end tests of ``forward: offload``: services, daemon, client."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

from services import http_service
from waiting import TIMEOUT, wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import Topology

EVEN = {"backend1": 10, "backend2": 10, "backend3": 10}
FAMILIES = [4, 6]


def service(family: int, **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, offloaded."""
    return http_service(family, **{"forward": "offload", **changes})


def seen_by_python(net: Topology) -> int:
    """Packets that the kernel has queued so far, all queues together."""
    table = net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    return sum(int(line.split()[7]) for line in table.splitlines())


def await_log(balancer: LabBalancer, words: str, count: int = 1) -> None:
    """Wait until the log has ``words`` ``count`` times."""
    wait_until(lambda: len(re.findall(words, balancer.log())) >= count, balancer.log)


class Held:
    """An open connection of the client, for repeated requests."""

    SCRIPT = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=60)
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
        """The answer to one more request, or the error; then the next opens a new connection."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().decode().strip()

    def end(self) -> None:
        """Close the connection."""
        self._process.communicate(timeout=TIMEOUT)

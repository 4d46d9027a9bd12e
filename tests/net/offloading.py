"""Helpers of the end-to-end tests of ``forward: offload``: services, daemon, client."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from services import http_service
from waiting import TIMEOUT, wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import Topology

FAMILIES = [4, 6]


def service(family: int, **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, offloaded."""
    return http_service(family, **{"forward": "offload", **changes})


def seen_by_python(net: Topology) -> int:
    """Packets that the kernel has queued so far, all queues together."""
    table = net.balancer.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    return sum(int(line.split()[7]) for line in table.splitlines())


def retransmitted(net: Topology) -> int:
    """Segments that the client has sent again so far: a first one that is, is queued again."""
    lines = net.client.run(["cat", "/proc/net/snmp"]).stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


@contextlib.contextmanager
def queued(net: Topology, packets: int) -> Iterator[None]:
    """So many packets are queued meanwhile, and those that the client sends again."""
    before, again = seen_by_python(net), retransmitted(net)
    yield
    found, more = seen_by_python(net) - before, retransmitted(net) - again
    assert packets <= found <= packets + more, (found, more)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process ``pid`` is stopped meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def await_reading(running: LabBalancer) -> None:
    """Wait until the daemon has read the kernel's counters: it does not log what they have then."""
    place = str(running.config.parent.parent / "control.sock")
    command = ["curl", "-sS", "--unix-socket", place, "http://paraglider/v1/metrics"]
    number = re.compile(r"^paraglider_conntrack_connections \d", re.MULTILINE)
    wait_until(lambda: number.search(running.namespace.run(command).stdout), running.log)


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

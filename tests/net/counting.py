"""Counters and connections of the kernel, for tests of the routes that packets take."""

from __future__ import annotations

import re
from pathlib import Path

from waiting import wait_until

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import Topology


def received(namespace: Namespace, interface: str) -> int:
    """How many packets have come in by ``interface``."""
    counter = f"/sys/class/net/{interface}/statistics/rx_packets"
    return int(namespace.run(["cat", counter]).stdout)


def connections(namespace: Namespace, port: int) -> list[str]:
    """The TCP connections of the local ``port`` whose last ACK has not come, as ``ss`` has them."""
    return namespace.run(["ss", "-Htn", f"sport = {port}"]).stdout.splitlines()


def await_received() -> None:
    """Wait until no packet waits in the queues of this host's cores, between the ends of a veth
    pair: counters then have what was sent before.
    """

    def waiting() -> int:
        lines = Path("/proc/net/softnet_stat").read_text().splitlines()
        return sum(int(line.split()[11], 16) for line in lines)  # softnet_seq_show

    wait_until(lambda: waiting() == 0, lambda: f"{waiting()} packets wait")


def echo_requests(net: Topology, family: int) -> list[int]:
    """How many echo requests each backend has seen."""
    counters = []
    for backend in net.backends:
        if family == 6:
            text = backend.run(["cat", "/proc/net/snmp6"]).stdout
            counters.append(int(re.findall(r"Icmp6InEchos\s+(\d+)", text)[0]))
        else:
            text = backend.run(["cat", "/proc/net/snmp"]).stdout
            names, values = (line.split() for line in re.findall("^Icmp: .*$", text, re.MULTILINE))
            counters.append(int(dict(zip(names, values, strict=True))["InEchos"]))
    return counters

"""Counters and connections of the kernel, for tests of the routes that packets take."""

from __future__ import annotations

import re

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import Topology


def received(namespace: Namespace, interface: str) -> int:
    """How many packets have come in by ``interface``."""
    counter = f"/sys/class/net/{interface}/statistics/rx_packets"
    return int(namespace.run(["cat", counter]).stdout)


def connections(namespace: Namespace, port: int) -> list[str]:
    """The TCP connections of the local ``port`` whose last ACK has not come, as ``ss`` has them."""
    return namespace.run(["ss", "-Htn", f"sport = {port}"]).stdout.splitlines()


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

"""What the end-to-end tests of dsr share: backends that hold the VIP, and who was asked how often.

Importable by its name (``conftest`` puts this directory on ``sys.path``).
"""

from __future__ import annotations

import json
from typing import Any

from offloading import seen_by_python

from paraglider.lab.backends import hold_vips
from paraglider.lab.topology import VIP, Topology, backend_address

__all__ = ["EVEN", "FAMILIES", "answers_by", "directed", "seen_by_python", "service", "table"]

EVEN = {"backend1": 10, "backend2": 10, "backend3": 10}
FAMILIES = [4, 6]


def service(family: int, **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, by dsr."""
    prefix = 24 if family == 4 else 64
    return {
        "name": f"web{family}",
        "vip": f"{VIP[family]}/{prefix}",
        "protocol": "tcp",
        "ports": 80,
        "forward": "dsr",
        "backends": [backend_address(family, number) for number in (1, 2, 3)],
        **changes,
    }


def directed(topology: Any, **plan: Any) -> Topology:
    """A network whose backends hold the VIPs and have a way to the clients of their own."""
    net: Topology = topology(direct=True, **plan)
    for backend in net.backends:
        hold_vips(backend, VIP.values())
    return net


def answers_by(net: Topology) -> int:
    """Bytes that the balancer has sent to the clients' network so far."""
    text = net.balancer.run(["cat", "/sys/class/net/eth0/statistics/tx_bytes"]).stdout
    return int(text)


def table(net: Topology, family: int) -> list[dict[str, Any]]:
    """The leases that the kernel holds, as nft's elements."""
    name = {4: "ip", 6: "ip6"}[family]
    done = net.balancer.run(["nft", "-j", "list", "table", name, "paraglider-dsr"])
    items = json.loads(done.stdout)["nftables"]
    return [element for item in items for element in item.get("set", {}).get("elem", [])]

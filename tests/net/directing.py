"""What the end-to-end tests of dsr share: backends that hold the VIP, and who was asked how often.

Importable by its name (``conftest`` puts this directory on ``sys.path``).
"""

from __future__ import annotations

import json
from typing import Any

from paraglider.lab.topology import VIP, Topology, backend_address

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
        # What `paraglider backend-setup` does (``test_backend_setup``), without its state to undo.
        backend.sysctl("net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
        backend.ip(*(f"address add {vip} dev lo" for vip in VIP.values()))
    return net


def answers_by(net: Topology) -> int:
    """Bytes that the balancer has sent to the clients' network so far."""
    text = net.balancer.run(["cat", "/sys/class/net/eth0/statistics/tx_bytes"]).stdout
    return int(text)


def leases(net: Topology, family: int) -> int:
    """How many leases the kernel holds."""
    name = {4: "ip", 6: "ip6"}[family]
    done = net.balancer.run(["nft", "-j", "list", "table", name, "paraglider-dsr"])
    items = json.loads(done.stdout)["nftables"]
    return sum(len(item.get("set", {}).get("elem", ())) for item in items)

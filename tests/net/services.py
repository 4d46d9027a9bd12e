"""Services of the end-to-end tests: HTTP on the VIP of a family, where it answers, its clients.

Importable by its name (``conftest`` puts this directory on ``sys.path``).
"""

from __future__ import annotations

from typing import Any

from waiting import wait_until

from paraglider.lab.topology import VIP, Topology, backend_address


def http_service(family: int, **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, with three backends."""
    prefix = 24 if family == 4 else 64
    return {
        "name": f"web{family}",
        "vip": f"{VIP[family]}/{prefix}",
        "protocol": "tcp",
        "ports": 80,
        "backends": [backend_address(family, number) for number in (1, 2, 3)],
        **changes,
    }


def url(family: int, path: str = "/", port: int = 80) -> str:
    """A URL on the VIP of ``family``."""
    host = VIP[family] if family == 4 else f"[{VIP[family]}]"
    return f"http://{host}:{port}{path}"


def connections_begun(net: Topology) -> int:
    """How many connections the client has begun so far."""
    lines = net.client.run(["cat", "/proc/net/snmp"]).stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("ActiveOpens")])


def await_connections(net: Topology, more: int, since: int | None = None) -> None:
    """Wait until the client has begun ``more`` connections than ``since``, by default than now."""
    before = connections_begun(net) if since is None else since
    wait_until(lambda: connections_begun(net) >= before + more)

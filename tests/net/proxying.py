"""What the end-to-end tests of ``forward: proxy`` share: its services, its processes, a client."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import children

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, backend_address

PATIENCE = 20.0  # seconds until something that must happen counts as not happening


def service(family: int, **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, proxied."""
    prefix = 24 if family == 4 else 64
    return {
        "name": f"web{family}",
        "vip": f"{VIP[family]}/{prefix}",
        "protocol": "tcp",
        "ports": 80,
        "forward": "proxy",
        "backends": [backend_address(family, number) for number in (1, 2, 3)],
        **changes,
    }


def url(family: int, path: str = "/", port: int = 80) -> str:
    """Where the VIP of ``family`` answers HTTP."""
    host = f"[{VIP[family]}]" if family == 6 else VIP[family]
    return f"http://{host}:{port}{path}"


def fetch(client: Namespace, address: str) -> str:
    """What is answered there."""
    return client.run(["curl", "-sS", "--max-time", "15", address], timeout=30).stdout.strip()


def workers(balancer: LabBalancer) -> list[int]:
    """The process ids of the proxy workers, in the order of their cores."""
    named = children(balancer).items()
    return [pid for name, pid in sorted(named) if name.startswith("paraproxy/")]


def wait_until(condition: Callable[[], object], balancer: LabBalancer) -> None:
    """Wait for ``condition``; fail with the log when it does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, balancer.log()
        time.sleep(0.02)


def events(balancer: LabBalancer, event: str) -> list[str]:
    """The log's lines about ``event``."""
    return re.findall(rf'^.*event="?{event}"?(?: .*)?$', balancer.log(), re.MULTILINE)


class Client:
    """``peer.py`` at work in the client's namespace: it speaks first, and goes on when told."""

    def __init__(self, namespace: Namespace, *arguments: object) -> None:
        command = [sys.executable, str(Path(__file__).parent / "peer.py"), *map(str, arguments)]
        self._process = namespace.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def said(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def go_on(self) -> str:
        """Have it go on; its last line."""
        out, _ = self._process.communicate(b"\n", timeout=60)
        return out.decode().strip()

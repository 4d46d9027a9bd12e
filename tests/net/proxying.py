"""Helpers of the end-to-end tests of ``forward: proxy``: services, processes, client."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from processes import children
from services import http_service

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.namespace import Namespace


def service(family: int, **changes: Any) -> dict[str, Any]:
    """HTTP on the VIP of ``family``, proxied."""
    return http_service(family, **{"forward": "proxy", **changes})


def fetch(client: Namespace, address: str) -> str:
    """The body of the response."""
    return client.run(["curl", "-sS", "--max-time", "60", address], timeout=90).stdout.strip()


def workers(balancer: LabBalancer) -> list[int]:
    """The process ids of the proxy workers, in the order of their cores."""
    named = children(balancer).items()
    return [pid for name, pid in sorted(named) if name.startswith("paraproxy/")]


def events(balancer: LabBalancer, event: str) -> list[str]:
    """The log's lines about ``event``."""
    return re.findall(rf'^.*event="?{event}"?(?: .*)?$', balancer.log(), re.MULTILINE)


class Client:
    """A running ``peer.py`` in the client's namespace: it sends first, and continues on request."""

    def __init__(self, namespace: Namespace, *arguments: object) -> None:
        command = [sys.executable, str(Path(__file__).parent / "peer.py"), *map(str, arguments)]
        self._process = namespace.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def said(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def go_on(self) -> str:
        """Let it continue; returns its last line."""
        out, _ = self._process.communicate(b"\n", timeout=60)
        return out.decode().strip()

"""The parts of the lab for ``forward: dsr`` and ``tunnel``, where backends answer the client.

Lives here: the set-up of the backends (``set_up``, ``undo``), and ``DirectDownload``, which checks
that answers bypass the balancer.
Rules: as in ``scenario``; the backends are set up by the operator's command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paraglider.errors import PlatformError
from paraglider.forward.registry import methods
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Topology

SIZE = 4_000_000
"""Bytes that are downloaded per family."""
SPARE = SIZE // 20
"""Bytes that the balancer may send meanwhile: ARP, neighbour discovery and the like."""


def set_up(backends: Sequence[Namespace], config: Path, services: Sequence[str]) -> None:
    """Set every backend up for ``services``; raises ``PlatformError``."""
    for backend in backends:
        backend.run([*_command(config), *services, "--apply"])


def undo(backend: Namespace, config: Path) -> None:
    """Undo ``set_up`` of ``backend``, if there is one."""
    backend.run([*_command(config), "--undo"])


def needed(config: Path) -> bool:
    """Whether the services in the lab's file need a set-up of the backends."""
    text = config.read_text(encoding="utf-8")
    ways = ["return: direct", *(f"forward: {m.name}" for m in methods() if not m.owns_vip)]
    return any(way in text for way in ways)


@dataclass(frozen=True)
class DirectDownload:
    """Bytes that the client received, and bytes that the balancer sent to it meanwhile."""

    got: int
    sent: int

    def faults(self) -> list[str]:
        """The faults of the download; empty if there are none."""
        found = []
        if self.got != SIZE * len(VIP):
            found.append(f"{self.got} bytes of {SIZE * len(VIP)} were downloaded")
        if self.sent > SPARE:
            found.append(f"the balancer sent {self.sent} bytes: answers do not bypass it")
        return found


def download(net: Topology, port: int) -> DirectDownload:
    """Download ``SIZE`` bytes over each family; raises ``PlatformError``."""
    before, got = _sent(net.balancer), 0
    for family, vip in VIP.items():
        host = f"[{vip}]" if family == 6 else vip
        url = f"http://{host}:{port}/bytes/{SIZE}"
        # No curl: the lab needs nothing but the package.
        script = "import sys, urllib.request as r; print(len(r.urlopen(sys.argv[1]).read()))"
        done = net.client.run([sys.executable, "-c", script, url], check=False, timeout=60)
        if done.returncode != 0:
            raise PlatformError(f"{url}: {done.stderr.strip().splitlines()[-1]}")
        got += int(done.stdout)
    return DirectDownload(got, _sent(net.balancer) - before)


def _sent(balancer: Namespace) -> int:
    return int(balancer.run(["cat", "/sys/class/net/eth0/statistics/tx_bytes"]).stdout)


def _command(config: Path) -> list[str]:
    return [sys.executable, "-m", "paraglider", "backend-setup", "-c", str(config)]

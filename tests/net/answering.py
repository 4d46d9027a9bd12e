"""What the tests of backends' own hosts share: ``paraglider backend-setup``, run on backends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import Topology


def backend_setup(
    backend: Namespace, file: Path, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run the command in ``backend`` with the balancer's file."""
    command = [sys.executable, "-m", "paraglider", "backend-setup", "-c", str(file)]
    return backend.run([*command, *arguments], check=check)


def apply_on_all(net: Topology, file: Path, *services: str) -> None:
    """Give every backend what it needs for ``services``."""
    for backend in net.backends:
        backend_setup(backend, file, *services, "--apply")

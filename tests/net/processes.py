"""The processes of a running balancer, as the system shows them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from paraglider.lab.balancer import LabBalancer


def children(balancer: LabBalancer) -> dict[str, int]:
    """The daemon's processes by their names, such as ``paraglider/http``: name → process id."""
    listing = Path(f"/proc/{balancer.pid}/task/{balancer.pid}/children").read_text().split()
    named = {}
    for pid in listing:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            named[Path(f"/proc/{pid}/comm").read_text().strip()] = int(pid)
    return named


def workers(balancer: LabBalancer) -> list[int]:
    """The process ids of the workers, which are named after their cores, in that order."""
    named = children(balancer).items()
    return [pid for name, pid in sorted(named) if re.fullmatch(r"paraglider/\d+", name)]

"""A control group for the bench: the CPU time of all its processes in one reading.

Rules: version 1's ``cpuacct`` where it is mounted, else version 2, whose ``cpu.stat`` has the time
without any controller (Linux, Documentation/admin-guide/cgroup-v1/cpuacct.rst and cgroup-v2.rst).
Groups are named after the process that created them, so stale ones are found by name.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from bench import parse
from paraglider.lab import namespace

ROOT = Path("/sys/fs/cgroup")
NAME = re.compile(r"paraglider-bench-pg(?P<pid>\d+)(\.\d+)?")
REMOVAL_TIMEOUT = 3.0  # seconds until the last process must have left


class Group:
    """The group ``directory``, made by ``create``; ``close`` removes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def create(cls, prefix: str, root: Path = ROOT) -> Self | None:
        """A group named after ``prefix`` (of a topology); None if this process may write to no
        hierarchy.
        """
        for hierarchy in hierarchies(root):
            directory = hierarchy / f"paraglider-bench-{prefix}"
            with contextlib.suppress(OSError):
                directory.mkdir()
                return cls(directory)
        return None

    def add(self, pids: Iterable[int]) -> None:
        """Move processes and all their threads into the group; their later children are in it too.
        Processes that have exited are skipped.
        """
        members = (self.directory / "cgroup.procs").read_text().split()
        for pid in pids:
            # A move waits for a grace period of RCU, so only processes outside of the group are
            # moved.
            if str(pid) not in members:
                with contextlib.suppress(ProcessLookupError):
                    (self.directory / "cgroup.procs").write_text(str(pid))

    def usage(self) -> float:
        """The CPU time used by processes while they were in the group, in microseconds."""
        nanoseconds = self.directory / "cpuacct.usage"
        if nanoseconds.exists():
            return int(nanoseconds.read_text()) / 1000
        return parse.cgroup_usage((self.directory / "cpu.stat").read_text())

    def close(self) -> None:
        """Remove the group once its processes have exited; may be called again."""
        deadline = time.monotonic() + REMOVAL_TIMEOUT
        while self.directory.exists():
            try:
                self.directory.rmdir()
            except OSError:  # a process that was killed is on its way out
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def hierarchies(root: Path = ROOT) -> list[Path]:
    """The mounted hierarchies that account for CPU time, the preferred one first."""
    cpuacct = [root / "cpuacct"] if (root / "cpuacct" / "cpuacct.usage").exists() else []
    unified = [root / name for name in (".", "unified")]
    return [*cpuacct, *(one for one in unified if (one / "cgroup.controllers").exists())]


def remove_stale(root: Path = ROOT) -> None:
    """Remove the empty groups of benches that have exited."""
    for hierarchy in hierarchies(root):
        for directory in hierarchy.iterdir():
            match = NAME.fullmatch(directory.name)
            if match is not None and not namespace.alive(int(match["pid"])):
                with contextlib.suppress(OSError):
                    directory.rmdir()

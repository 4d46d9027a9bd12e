"""Processor time: of the balancer's processes, and of the whole machine.

The processes are those in the balancer's namespace. The kernel's work in a softirq is charged to
the process that runs at that moment, often the client or a backend: so for flows that the kernel
carries the processes' time means little, and the whole machine's time (including clients and
backends) is given too.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from bench import parse
from paraglider.lab.namespace import Namespace

TICKS = os.sysconf("SC_CLK_TCK")  # a second


@dataclass(frozen=True, slots=True)
class Reading:
    """Clock ticks used so far, by process id and by the whole machine."""

    processes: dict[int, int]
    machine: int


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds between two readings; ``processes`` is None where there are no processes."""

    processes: float | None
    machine: float

    def __add__(self, other: Used) -> Used:
        both = None
        if self.processes is not None and other.processes is not None:
            both = self.processes + other.processes
        return Used(both, self.machine + other.machine)


def read(balancer: Namespace, proc: Path = Path("/proc")) -> Reading:
    """The state of now."""
    processes = {}
    for pid in balancer.pids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            processes[pid] = parse.process_ticks((proc / str(pid) / "stat").read_text())
    return Reading(processes, parse.busy_ticks((proc / "stat").read_text()))


def between(before: Reading, after: Reading) -> Used:
    """CPU time used between ``before`` and ``after``; without processes that ended in between."""
    processes = None
    if after.processes:
        ticks = sum(used - before.processes.get(pid, 0) for pid, used in after.processes.items())
        processes = ticks / TICKS
    return Used(processes, (after.machine - before.machine) / TICKS)

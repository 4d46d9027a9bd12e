"""CPU time: of the balancer's processes, and of everything in the bed.

The bed is a stage with its load: client, balancer and backends. Its time is that of the bench's own
control group (``cgroup``), which has all processes of the stage's namespaces, and of the kernel's
ksoftirqd threads, which process packets under load. Without a control group it is the time of the
whole machine. If the kernel carries flows, the time of the balancer's processes says little: the
kernel charges a softirq to the process that runs at that moment, often the client or a backend.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import parse
from bench.cgroup import Group
from bench.results import CGROUP, MACHINE
from paraglider.lab.namespace import Namespace

TICKS = os.sysconf("SC_CLK_TCK")  # a second
MICROSECONDS = 1_000_000 / TICKS  # a tick


@dataclass(frozen=True, slots=True)
class Reading:
    """Time used so far: clock ticks by process id, and microseconds of the bed."""

    processes: dict[int, int]
    bed: float


@dataclass(frozen=True, slots=True)
class Used:
    """CPU time between two readings: seconds of the balancer's processes, None where there are
    none, and microseconds of the bed.
    """

    processes: float | None
    bed: float

    def __add__(self, other: Used) -> Used:
        both = None
        if self.processes is not None and other.processes is not None:
            both = self.processes + other.processes
        return Used(both, self.bed + other.bed)


class Meter:
    """Reads the CPU time of a stage's ``namespaces``, of which ``balancer`` is one, by ``group``;
    None means by the machine's ``proc``.
    """

    def __init__(
        self,
        balancer: Namespace,
        namespaces: Sequence[Namespace],
        group: Group | None,
        proc: Path = Path("/proc"),
    ) -> None:
        self._balancer = balancer
        self._namespaces = namespaces
        self._group = group
        self._proc = proc
        # Kernels that account for interrupts apart charge no process, hence no group, for them;
        # these also have their pressure (Documentation/accounting/psi.rst, CONFIG_PSI=y assumed).
        self._interrupts_apart = _readable(proc / "pressure" / "irq")
        self._softirq_threads = [] if group is None else softirq_threads(proc)

    @property
    def source(self) -> str:
        """The source of the bed's time, as in ``Results.cpu``."""
        return MACHINE if self._group is None else CGROUP

    def add(self, pid: int) -> None:
        """Count the time of a process that has just been started in one of the namespaces."""
        if self._group is not None:
            self._group.add([pid])

    def read(self) -> Reading:
        """The times until now; processes that are new are counted from here on."""
        if self._group is not None:
            self._group.add(pid for one in self._namespaces for pid in one.pids())
        return Reading(self._ticks(self._balancer.pids()), self._bed())

    def _bed(self) -> float:
        if self._group is None:
            return parse.busy_ticks(self._stat()) * MICROSECONDS
        if self._interrupts_apart:
            softirqs = parse.interrupt_ticks(self._stat())
        else:
            softirqs = sum(self._ticks(self._softirq_threads).values())
        return self._group.usage() + softirqs * MICROSECONDS

    def _stat(self) -> str:
        return (self._proc / "stat").read_text()

    def _ticks(self, pids: Iterable[int]) -> dict[int, int]:
        found = {}
        for pid in pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                found[pid] = parse.process_ticks((self._proc / str(pid) / "stat").read_text())
        return found


def softirq_threads(proc: Path = Path("/proc")) -> list[int]:
    """The process ids of the kernel's ksoftirqd threads."""
    found = []
    for directory in proc.iterdir():
        if directory.name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended
                if (directory / "comm").read_text().startswith("ksoftirqd/"):
                    found.append(int(directory.name))
    return found


def between(before: Reading, after: Reading) -> Used:
    """CPU time used between ``before`` and ``after``; without processes that ended in between."""
    processes = None
    if after.processes:
        ticks = sum(used - before.processes.get(pid, 0) for pid, used in after.processes.items())
        processes = ticks / TICKS
    return Used(processes, after.bed - before.bed)


def _readable(file: Path) -> bool:
    try:
        file.read_text()
    except OSError:
        return False
    return True

"""Detects hanging processes by their heartbeat (``heartbeat``).

A process is silent since its last heartbeat; time in which the supervisor did not poll (it was
busy, or the machine was suspended) does not count. One that is silent for HANG seconds hangs,
unless it applies a configuration (LONG_WORK), or is runnable and gets no CPU time (STARVED).

Lives here: ``Hangs``.
Rules: time is an argument; /proc is read for silent processes only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

from paraglider.daemon.shared_memory.heartbeat import Heartbeat

#: seconds between two polls
POLL: Final = 0.5
#: seconds without a heartbeat that are reported
SILENT: Final = 2.0
#: seconds after which a process hangs: with polling and the start of its successor within 5 s
HANG: Final = 4.0
#: the same while it applies a configuration
LONG_WORK: Final = 60.0
#: the same while it is runnable and the kernel gives it less than FAIR of a core
STARVED: Final = 30.0
FAIR: Final = 0.1

_STATES: Final = {
    "R": "runs",
    "S": "waits",
    "D": "waits for the kernel",
    "T": "is stopped",
    "t": "is traced",
    "Z": "is dead",
}


class Usage(NamedTuple):
    """The kernel's data about a process: its state, a letter (proc(5)), and its CPU seconds."""

    state: str
    cpu: float


def usage(pid: int) -> Usage | None:
    """The ``Usage`` of ``pid``; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return Usage(fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))


class Hangs:
    """Watches processes by their pids."""

    def __init__(self, read: Callable[[int], Usage | None] = usage) -> None:
        self._read = read
        self._last = -inf
        self._since = -inf  # since when polling has had no gap
        self._begun: dict[
            int, tuple[float, Usage]
        ] = {}  # silent processes, with their usage at that time

    def wait(self, now: float) -> float:
        """Seconds until the next poll is due."""
        return max(0.0, self._last + POLL - now)

    def begin_poll(self, now: float) -> None:
        """Begin a poll at ``now``; to be called before ``silence`` of every process."""
        if now - self._last > POLL + SILENT:
            self._since = now
            self._begun.clear()
        self._last = now

    def silence(self, life: Heartbeat, started: float, now: float) -> float:
        """Seconds for which a process has given no heartbeat although it could have."""
        return now - max(min(life.last, now), started, self._since)

    def hangs(self, pid: int, life: Heartbeat, silence: float, now: float) -> bool:
        """Whether the process ``pid``, silent for ``silence`` seconds, hangs."""
        if silence < SILENT:
            self._begun.pop(pid, None)
            return False
        found = self._read(pid)
        if found is None:
            return False  # it is dead, which is handled elsewhere
        begun, before = self._begun.setdefault(pid, (now, found))
        if silence < HANG:
            return False
        if life.works_long:
            return silence >= LONG_WORK
        starved = found.state == "R" and found.cpu - before.cpu < FAIR * (now - begun)
        return silence >= (STARVED if starved else HANG)

    def state(self, pid: int) -> str:
        """The state of the process in words."""
        found = self._read(pid)
        return "is gone" if found is None else _STATES.get(found.state, found.state)

    def forget(self, pid: int) -> None:
        """Forget ``pid``, which has been reaped."""
        self._begun.pop(pid, None)

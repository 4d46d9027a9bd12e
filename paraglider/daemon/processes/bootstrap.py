"""The first steps of every forked process: its name, its signals, its privileges, its report.

Lives here: ``set_process_name``, ``lock_down``, ``set_title``, ``report_ready``, ``report_error``.
Rules: ``report`` is the pipe to the supervisor, which reads READY from it, or an exit code and an
error.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import prctl

from paraglider.daemon.processes.spec import READY
from paraglider.errors import ParagliderError
from paraglider.host import privileges, seccomp

_MEMORY: Final = Path("/proc/self/mem")
_STAT: Final = Path("/proc/self/stat")
#: places of arg_start and arg_end among the fields of proc_pid_stat(5), counted from 1
_ARG_START, _ARG_END = 48, 49


def set_process_name(name: str, title: str) -> None:
    """Set the process's ``name`` (15 bytes, comm in proc(5)) and ``title``, and ignore signals of
    the terminal: they reach the whole group, and the parent handles them.
    """
    prctl.set_name(name)
    set_title(title)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def set_title(title: str) -> None:
    """Have ``ps`` show ``title`` as the command line, cut to the length of the one that is there.

    The kernel shows the bytes between arg_start and arg_end (proc_pid_cmdline(5)). Only these are
    overwritten, through the kernel; the environment behind them is neither read nor moved. Without
    /proc nothing happens.
    """
    with contextlib.suppress(OSError):
        fields = _STAT.read_bytes().rpartition(b")")[2].split()  # from field 3 on
        start, end = (int(fields[number - 3]) for number in (_ARG_START, _ARG_END))
        room = end - start
        # The last byte stays NUL, otherwise the kernel reads on into the environment.
        text = title.encode(errors="replace")[: max(room - 1, 0)].ljust(room, b"\0")
        with _MEMORY.open("r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(text)


def lock_down(
    role: str,
    parent: int,
    user: tuple[int, int],
    chroot: str,
    keep: tuple[int, ...] = (),
    ahead: Callable[[], object] | None = None,
) -> None:
    """Drop everything that a process of ``role`` does not need: privileges, root directory, system
    calls.

    ``user`` is a user id and a group id, ``keep`` are the capabilities to keep, ``parent`` is the
    process whose death ends this one; ``ahead`` is called as ``user``, before the rest is dropped.
    Raises ``PlatformError`` when the kernel refuses a step.
    """
    privileges.drop(*user, chroot, keep=keep, ahead=ahead)
    privileges.die_with_parent(parent)
    seccomp.confine(role)


def ignore_termination() -> None:
    """Ignore SIGTERM from now on: the process ends already. While asyncio closes its loop, another
    signal would be reported as a fault, or end the process by itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def report_ready(report: int) -> None:
    """Report to the supervisor that the process is ready."""
    os.write(report, READY)
    os.close(report)


def report_error(report: int, error: ParagliderError) -> int:
    """Report to the supervisor why the process failed to start; returns the exit code."""
    os.write(report, f"{error.exit_code}{error}".encode())
    return error.exit_code

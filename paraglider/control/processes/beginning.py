"""How every process that the supervisor forks begins: its names, its signals, its first word.

Lives here: ``introduce``, ``serves`` and ``refused``.
Rules: ``report`` is the pipe to the supervisor, which reads READY from it, or an exit code and why.
"""

from __future__ import annotations

import os
import signal

import prctl

from paraglider.control.processes.children import READY
from paraglider.errors import ParagliderError


def introduce(name: str, title: str) -> None:
    """Be ``name`` (15 bytes, comm in proc(5)) and ``title`` to who lists processes, and leave
    signals of the terminal, which reach the whole group, to the parent.
    """
    prctl.set_name(name)
    prctl.set_proctitle(title)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def serves(report: int) -> None:
    """Tell the supervisor that the work has begun."""
    os.write(report, READY)
    os.close(report)


def refused(report: int, error: ParagliderError) -> int:
    """Tell the supervisor why it cannot begin; the exit code to end with."""
    os.write(report, f"{error.exit_code}{error}".encode())
    return error.exit_code

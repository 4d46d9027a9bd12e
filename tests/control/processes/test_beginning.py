"""Tests of ``paraglider.control.processes.beginning``.

The first word of a process, and its names.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from paraglider.control.processes.beginning import introduce, refused, serves
from paraglider.control.processes.children import READY
from paraglider.errors import OperatorError, PlatformError


def said(pipe: int) -> bytes:
    """All that came through a pipe whose other end is closed."""
    with os.fdopen(pipe, "rb") as end:
        return end.read()


def test_ready_is_the_last_word() -> None:
    """The pipe is closed with it, so the supervisor waits for nothing more."""
    reading, writing = os.pipe()
    serves(writing)
    assert said(reading) == READY


def test_a_refusal_says_whose_fault_it_is() -> None:
    """Its exit code goes ahead of the words."""
    for error, code in ((OperatorError("no", "yes"), 1), (PlatformError("no", "yes"), 2)):
        reading, writing = os.pipe()
        assert refused(writing, error) == code
        os.close(writing)
        assert said(reading) == f"{code}no; yes".encode()


def test_names_and_signals() -> None:
    """Who lists processes sees which it is; the terminal's signals are the parent's to hear."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        introduce("paraglider/tst", "paraglider: is tested")
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
        names = [Path(f"/proc/self/{file}").read_bytes() for file in ("comm", "cmdline")]
        os.write(writing, b"|".join(name.rstrip(b"\0\n") for name in names))
        os._exit(0)
    os.close(writing)
    assert said(reading) == b"paraglider/tst|paraglider: is tested"
    assert os.waitpid(pid, 0)[1] == 0

"""Tests of ``paraglider.daemon.processes.bootstrap``.

The first word of a process, and its names.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paraglider.daemon.processes.bootstrap import report_error, report_ready, set_process_name
from paraglider.daemon.processes.spec import READY
from paraglider.errors import OperatorError, PlatformError


def said(pipe: int) -> bytes:
    """Everything read from a pipe whose other end is closed."""
    with os.fdopen(pipe, "rb") as end:
        return end.read()


def test_ready_is_the_last_word() -> None:
    """The pipe is closed with it, so the supervisor waits for nothing more."""
    reading, writing = os.pipe()
    report_ready(writing)
    assert said(reading) == READY


def test_a_refusal_has_its_exit_code() -> None:
    """Its exit code goes ahead of the words."""
    for error, code in ((OperatorError("no", "yes"), 1), (PlatformError("no", "yes"), 2)):
        reading, writing = os.pipe()
        assert report_error(writing, error) == code
        os.close(writing)
        assert said(reading) == f"{code}no; yes".encode()


def test_names_and_signals() -> None:
    """The name is shown by ps; signals of the terminal are ignored."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        set_process_name("paraglider/tst", "paraglider: is tested")
        for number in (signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
        names = [Path(f"/proc/self/{file}").read_bytes() for file in ("comm", "cmdline")]
        os.write(writing, b"|".join(name.rstrip(b"\0\n") for name in names))
        os._exit(0)
    os.close(writing)
    assert said(reading) == b"paraglider/tst|paraglider: is tested"
    assert os.waitpid(pid, 0)[1] == 0


RENAMED = """
import os, sys
from paraglider.daemon.processes.bootstrap import set_title
for name in sys.argv[2:]:
    os.environ.pop(name, None)
set_title(sys.argv[1])
os.environ["LATER"] = "1"
for file in ("cmdline", "environ"):
    os.write(1, open(f"/proc/self/{file}", "rb").read().rstrip(b"\\0") + b"\\n")
"""


@pytest.mark.parametrize(
    "variables",
    [
        {"NOTIFY_SOCKET": "/n", "PATH": "/bin"},
        {"PATH": "/bin", "NOTIFY_SOCKET": "/n"},
        {"NOTIFY_SOCKET": "/n"},
        {},
    ],
    ids=lambda variables: ",".join(variables) or "none",
)
@pytest.mark.parametrize("long", [False, True])
def test_a_title_whatever_the_environment(variables: dict[str, str], long: bool) -> None:
    """The first variable may have been taken out, or there may be none: the title stands where the
    command line was, as much as has room, and the kernel's copy of the environment is untouched.
    """
    title = "paraglider: " + "x" * (4000 if long else 3)
    command = [sys.executable, "-c", RENAMED, title, *variables]
    done = subprocess.run(command, env=variables, capture_output=True, check=True)
    shown, environment = done.stdout.split(b"\n")[:2]
    room = sum(len(os.fsencode(part)) + 1 for part in command) - 1
    assert shown == title.encode()[:room]
    assert environment == b"\0".join(f"{k}={v}".encode() for k, v in variables.items())

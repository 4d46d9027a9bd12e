"""Tests of ``paraglider.health.probes.program``: what runs, what is told, what is left over."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paraglider.health.codes import Code
from paraglider.health.probes.base import Look
from paraglider.health.probes.program import Exec


def python(text: str, *arguments: str) -> list[str]:
    """The command that runs ``text``."""
    return [sys.executable, "-I", "-S", "-c", text, *arguments]


def gone(pid: int) -> bool:
    """Whether a process has ended, within ten seconds; one that waits to be reaped has."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state[0] == "Z":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("text", "passed", "detail"),
    [
        ("pass", True, "exit code 0"),
        ("print('all\\nfine')", True, "exit code 0: all"),
        ("raise SystemExit('too slow')", False, "exit code 1: too slow"),
        ("raise SystemExit(3)", False, "exit code 3"),
        ("import os; os.kill(os.getpid(), 15)", False, "ended by SIGTERM"),
    ],
)
def test_exit_code(probing: Callable[..., Look], text: str, passed: bool, detail: str) -> None:
    """The exit code decides, and the first line says more."""
    found = probing(Exec(), type="exec", command=python(text), timeout=30)
    assert (found.passed, found.detail) == (passed, detail)
    assert found.code is (Code.PROCOK if passed else Code.PROCERR)


def test_environment(probing: Callable[..., Look], monkeypatch: pytest.MonkeyPatch) -> None:
    """The program knows whom it is to look at, and nothing of our environment."""
    monkeypatch.setenv("SECRET", "x")
    text = (
        "import os; print(sorted((k, v) for k, v in os.environ.items() if k[:2] in ('PA', 'SE')))"
    )
    found = probing(Exec(), type="exec", command=python(text), port=8080, timeout=30)
    for word in ("('PARAGLIDER_ADDRESS', '127.0.0.1')", "('PARAGLIDER_BACKEND', '127.0.0.1')"):
        assert word in found.detail
    assert "SECRET" not in found.detail


def test_no_shell(probing: Callable[..., Look]) -> None:
    """An argument is an argument, whatever a shell would make of it."""
    command = python("import sys; print(sys.argv[1])", "$HOME; false | `id`")
    found = probing(Exec(), type="exec", command=command, timeout=30)
    assert (found.passed, found.detail) == (True, "exit code 0: $HOME; false | `id`")


def test_a_program_that_never_ends(probing: Callable[..., Look], tmp_path: Path) -> None:
    """It is killed when its time is over, with what it started, and deaf to nothing less."""
    pids = tmp_path / "pids"
    text = """\
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()} ")
time.sleep(1000)
"""
    command = python(text, str(pids))
    for _ in range(20):  # on a slow machine it may not even have begun
        found = probing(Exec(), type="exec", command=command, timeout=1)
        assert (found.code, found.detail) == (Code.PROCTOUT, "command timed out after 1 s")
        started = pids.read_text(encoding="ascii").split() if pids.exists() else []
        if len(started) >= 2:
            break
    assert len(started) >= 2
    assert all(gone(int(pid)) for pid in started)


def test_what_it_leaves_behind(probing: Callable[..., Look], tmp_path: Path) -> None:
    """A child that holds the output open keeps nobody waiting, and does not stay."""
    note = tmp_path / "pid"
    text = """\
import os, sys, time
if os.fork():
    time.sleep(0.01)
    while not os.path.getsize(sys.argv[1]):
        time.sleep(0.01)
else:
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
    time.sleep(1000)
"""
    note.touch()
    found = probing(Exec(), type="exec", command=python(text, str(note)), timeout=60)
    assert (found.passed, found.detail) == (True, "exit code 0")
    assert gone(int(note.read_text(encoding="ascii")))


def test_endless_output(probing: Callable[..., Look]) -> None:
    """What a program says is read and dropped: it need not wait, and costs no memory."""
    chatty = "import os\nfor _ in range(3000): os.write(1, b'x' * 9999)"
    found = probing(Exec(), type="exec", command=python(chatty), timeout=60)
    assert found.passed
    assert found.detail.startswith("exit code 0: xxxxx")
    assert len(found.detail) < 130


def test_a_program_that_is_not_there(probing: Callable[..., Look]) -> None:
    """A missing program says nothing of the backend."""
    found = probing(Exec(), type="exec", command=["/nowhere/check"], timeout=30)
    reason = "no such file or directory"
    assert (found.passed, found.code) == (None, Code.SOCKERR)
    assert found.detail == f"could not look: the command does not start: {reason}"


def test_no_zombies(probing: Callable[..., Look]) -> None:
    """A program that ended is waited for, even one that was killed."""
    probing(Exec(), type="exec", command=python("pass"), timeout=30)
    with contextlib.suppress(ChildProcessError):  # others that run may be there, none that ended
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)


def test_signals_of_ours_are_not_the_programs(probing: Callable[..., Look]) -> None:
    """It runs in a session of its own: Ctrl-C at the terminal is not meant for it."""
    text = "import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))"
    found = probing(Exec(), type="exec", command=python(text), timeout=30)
    assert found.detail == "exit code 0: True"
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL

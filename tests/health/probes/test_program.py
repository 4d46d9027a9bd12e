"""Tests of ``paraglider.health.probes.program``: execution, result and cleanup."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import runs, wait_until

from paraglider.health.codes import Code
from paraglider.health.probes.base import CheckResult
from paraglider.health.probes.program import Exec


def python(text: str, *arguments: str) -> list[str]:
    """The command that runs ``text``."""
    return [sys.executable, "-I", "-S", "-c", text, *arguments]


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
def test_exit_code(
    probing: Callable[..., CheckResult], text: str, passed: bool, detail: str
) -> None:
    """The exit code decides; the detail has the first line of output."""
    found = probing(Exec(), type="exec", command=python(text), timeout=30)
    assert (found.passed, found.detail) == (passed, detail)
    assert found.code is (Code.PROCOK if passed else Code.PROCERR)


def test_environment(probing: Callable[..., CheckResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's environment has the backend, and nothing else of ours."""
    monkeypatch.setenv("SECRET", "x")
    text = (
        "import os; print(sorted((k, v) for k, v in os.environ.items() if k[:2] in ('PA', 'SE')))"
    )
    found = probing(Exec(), type="exec", command=python(text), port=8080, timeout=30)
    for word in ("('PARAGLIDER_ADDRESS', '127.0.0.1')", "('PARAGLIDER_BACKEND', '127.0.0.1')"):
        assert word in found.detail
    assert "SECRET" not in found.detail


def test_no_shell(probing: Callable[..., CheckResult]) -> None:
    """An argument is passed unchanged, with any shell metacharacters."""
    command = python("import sys; print(sys.argv[1])", "$HOME; false | `id`")
    found = probing(Exec(), type="exec", command=command, timeout=30)
    assert (found.passed, found.detail) == (True, "exit code 0: $HOME; false | `id`")


def test_a_program_that_never_ends(probing: Callable[..., CheckResult], tmp_path: Path) -> None:
    """At the timeout the program and its children are killed, although they ignore SIGTERM."""
    pids = tmp_path / "pids"
    text = """\
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()} ")
signal.pause()
"""
    command = python(text, str(pids))
    for _ in range(20):  # on a slow machine it may not even have begun
        found = probing(Exec(), type="exec", command=command, timeout=1)
        assert (found.code, found.detail) == (Code.PROCTOUT, "command timed out after 1 s")
        started = pids.read_text(encoding="ascii").split() if pids.exists() else []
        if len(started) >= 2:
            break
    assert len(started) >= 2
    wait_until(lambda: not any(runs(int(pid)) for pid in started))


def test_what_it_leaves_behind(probing: Callable[..., CheckResult], tmp_path: Path) -> None:
    """A child that holds the output open does not delay the result, and is killed."""
    note = tmp_path / "pid"
    text = """\
import os, signal, sys, time
if os.fork():
    time.sleep(0.01)
    while not os.path.getsize(sys.argv[1]):
        time.sleep(0.01)
else:
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
    signal.pause()
"""
    note.touch()
    found = probing(Exec(), type="exec", command=python(text, str(note)), timeout=60)
    assert (found.passed, found.detail) == (True, "exit code 0")
    child = int(note.read_text(encoding="ascii"))
    wait_until(lambda: not runs(child))


def test_endless_output(probing: Callable[..., CheckResult]) -> None:
    """Output is read and discarded: it never blocks the program, and costs no memory."""
    chatty = "import os\nfor _ in range(3000): os.write(1, b'x' * 9999)"
    found = probing(Exec(), type="exec", command=python(chatty), timeout=60)
    assert found.passed
    assert found.detail.startswith("exit code 0: xxxxx")
    assert len(found.detail) < 130


def test_a_program_that_is_not_there(probing: Callable[..., CheckResult]) -> None:
    """With a missing program the check cannot be made."""
    found = probing(Exec(), type="exec", command=["/nowhere/check"], timeout=30)
    reason = "no such file or directory"
    assert (found.passed, found.code) == (None, Code.SOCKERR)
    assert found.detail == f"not checked: the command does not start: {reason}"


def test_no_zombies(probing: Callable[..., CheckResult]) -> None:
    """A program that ended is waited for, even one that was killed."""
    with contextlib.suppress(ChildProcessError):  # what other tests have left
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    probing(Exec(), type="exec", command=python("pass"), timeout=30)
    with contextlib.suppress(ChildProcessError):  # others that run may be there, none that ended
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)


def test_signals_of_ours_are_not_the_programs(probing: Callable[..., CheckResult]) -> None:
    """It runs in its own session: Ctrl-C at the terminal does not reach it."""
    text = "import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))"
    found = probing(Exec(), type="exec", command=python(text), timeout=30)
    assert found.detail == "exit code 0: True"
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL

"""exec: a backend passes if a program of the operator exits with code 0.

Lives here: ``Exec``.
Rules: an argument list, never a shell. The program runs in its own session, with only PATH of our
environment. Its whole process group is killed when it exits, at the timeout and when the checker
exits; the program is reaped after that, so that the id cannot belong to another process. Its output
is read and discarded except for the first line, which is shown, so that it never blocks. No thread
waits for it: the kernel reports its exit (pidfd_open(2)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import prctl

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.health import Check
from paraglider.health.codes import Code
from paraglider.health.probes.base import (
    Passed,
    Probe,
    ProbeError,
    ProbeStep,
    UnableError,
    phrase,
    shortened,
)
from paraglider.health.targets import Target

#: bytes of output that are kept
_KEPT: Final = 4096
_AT_ONCE: Final = 65536


class Exec(Probe):
    """Runs the check's command, with the backend in its environment."""

    name = "exec"
    summary = "passes the test of a program of yours, which exits with 0"
    keys = frozenset({"port", "command"})
    runs_program = True

    @classmethod
    def contradictions(cls, path: Path, check: Check) -> Iterator[Problem]:
        """A command, and in full."""
        command = check.command
        if command is None:
            remedy = "add `command: [/usr/local/bin/my-check]`, the program and its arguments"
            what = f"`type: {cls.name}` without a `command`"
            yield Problem((*path, "type"), what, remedy, needs=((*path, "command"),))
        elif not command[0].startswith("/"):
            what = "`command` does not begin with the absolute path of a program"
            yield Problem((*path, "command"), what, "write it in full, such as /usr/bin/test")

    async def __call__(self, target: Target, step: ProbeStep) -> Passed:
        """Run it."""
        step.name, step.timeout = "command", Code.PROCTOUT
        check = target.check
        if check is None or check.command is None:
            raise UnableError("there is no command")
        try:
            child = _Child(check.command, _environment(target))
        except OSError as error:
            raise UnableError(f"the command does not start: {phrase(error)}") from None
        try:
            status = await child.exit_status
        finally:
            child.end()
        line = shortened(child.output.decode("utf-8", "replace"))
        outcome = f"exit code {status}"
        if status < 0:
            outcome = f"ended by {signal.Signals(-status).name}"
        detail = f"{outcome}: {line}" if line else outcome
        if status != 0:
            raise ProbeError(Code.PROCERR, detail)
        return Passed(Code.PROCOK, detail)


class _Child:
    """The running program: ``exit_status`` is a future, ``output`` has its output so far.

    Raises OSError if it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
            # Safe here: the process has one thread. Nothing outlives a checker that is killed.
            preexec_fn=_die_with_parent,  # noqa: PLW1509
        )
        assert self._popen.stdout is not None  # noqa: S101 - asked for above
        self._loop = asyncio.get_running_loop()
        self._output = self._popen.stdout
        self._ending = os.pidfd_open(self._popen.pid)
        self._reaped = False
        self.exit_status: asyncio.Future[int] = self._loop.create_future()
        self.output = bytearray()
        os.set_blocking(self._output.fileno(), False)
        self._loop.add_reader(self._output, self._read_output)
        self._loop.add_reader(self._ending, self._reap)

    def end(self) -> None:
        """Kill the group, if it still runs. Does not wait: the leader is reaped when it exits,
        which may be late if it hangs in the kernel.
        """
        if not self._reaped:
            self._kill()
            self._close_output()

    def _read_output(self) -> None:
        try:
            data = os.read(self._output.fileno(), _AT_ONCE)
        except BlockingIOError:
            return
        self.output.extend(data[: max(_KEPT - len(self.output), 0)])
        if not data:
            self._close_output()

    def _close_output(self) -> None:
        if not self._output.closed:
            self._loop.remove_reader(self._output)
            self._output.close()

    def _reap(self) -> None:
        """The leader has exited; its id stays reserved until it is reaped."""
        self._loop.remove_reader(self._ending)
        os.close(self._ending)
        if not self._output.closed:
            self._read_output()  # its last words may still be in the pipe
        self._close_output()
        self._kill()
        self._reaped = True
        status = self._popen.wait()
        if not self.exit_status.done():
            self.exit_status.set_result(status)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)


def _environment(target: Target) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "LC_ALL": "C.UTF-8",
        "PARAGLIDER_SERVICE": target.service,
        "PARAGLIDER_BACKEND": target.backend,
        "PARAGLIDER_ADDRESS": str(target.address),
        "PARAGLIDER_PORT": str(target.port or ""),
    }


def _die_with_parent() -> None:
    prctl.set_pdeathsig(signal.SIGKILL)

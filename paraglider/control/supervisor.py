"""The supervisor: starts one worker a core, replaces those that die, ends them all.

It speaks no network protocol and reads no packet. It waits for signals alone (sigtimedwait), so
nothing can interrupt it half-way. A worker that dies is started anew at once; one that dies again
before it has lived LONG_ENOUGH waits, twice as long each time, so that it does not spin. SIGTERM
or SIGINT ends the workers, and those that do not end within PATIENCE are killed.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from paraglider.control import log
from paraglider.control.worker import READY, WorkerSpec
from paraglider.errors import OperatorError, ParagliderError, PlatformError

LONG_ENOUGH: Final = 5.0
FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 16.0
PATIENCE: Final = 1.0
START_PATIENCE: Final = 15.0
RESTART_PATIENCE: Final = 1.0

_SIGNALS: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: the worker's life: run(spec, report pipe, pid of the supervisor) -> exit code
Run = Callable[[WorkerSpec, int, int], int]


class Supervisor:
    """The workers of one Paraglider, and their care."""

    def __init__(self, specs: Sequence[WorkerSpec], run: Run) -> None:
        self._specs = {spec.index: spec for spec in specs}
        self._run_worker = run
        self._workers: dict[int, int] = {}  # pid -> index
        self._started: dict[int, float] = {}  # index -> when last started
        self._early_deaths = dict.fromkeys(self._specs, 0)
        self._waiting: dict[int, float] = {}  # index -> when to start again
        self._log: Any = log.logger()

    def run(self) -> int:
        """Start every worker, care for them until SIGTERM or SIGINT; the exit code.

        Raises the error of the first worker that could not start; then none is left running.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._start_all()
            self._log.info("ready", workers=len(self._specs))
            self._care()
        finally:
            self._end_all()
        self._log.info("ended")
        return 0

    def _start_all(self) -> None:
        reports = [(index, self._start(index)) for index in self._specs]
        for index, report in reports:
            self._await_ready(index, report, START_PATIENCE)

    def _start(self, index: int) -> int:
        """Fork the worker ``index``; the reading end of its report pipe."""
        spec = self._specs[index]
        reading, writing = os.pipe()
        parent = os.getpid()
        self._started[index] = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            status = PlatformError.exit_code
            try:
                status = self._run_worker(spec, writing, parent)
            except BaseException:  # noqa: BLE001 - whatever it is, it ends this process and no other
                self._log.exception("worker failed", worker=index)
            finally:
                os._exit(status)  # never back into the parent's code
        os.close(writing)
        self._workers[pid] = index
        return reading

    def _await_ready(self, index: int, report: int, patience: float) -> None:
        spec = self._specs[index]
        ready, _, _ = select.select([report], [], [], patience)
        message = os.read(report, 4096) if ready else b""
        os.close(report)
        if message == READY:
            self._log.info("worker ready", worker=index, core=spec.core)
        elif message[:1].isdigit():
            kind = OperatorError if message[:1] == b"1" else PlatformError
            raise kind(f"worker {index} on core {spec.core}: {message[1:].decode()}")
        else:
            raise PlatformError(
                f"worker {index} on core {spec.core} did not start", "the log above says why"
            )

    def _care(self) -> None:
        while True:
            timeout = 60.0
            if self._waiting:
                timeout = max(0.0, min(self._waiting.values()) - time.monotonic())
            caught = signal.sigtimedwait(_SIGNALS, timeout)
            if caught is not None and caught.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._log.info("stopping", signal=signal.Signals(caught.si_signo).name)
                return
            if caught is not None and caught.si_signo == signal.SIGHUP:
                self._log.warning("no reload in this version; restart to read the file again")
            self._reap()
            self._start_waiting()

    def _reap(self) -> None:
        """Note every worker that ended, and when it is to be started again."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            index = self._workers.pop(pid, None)
            if index is None:
                continue
            self._waiting[index] = self._when_again(index, time.monotonic())
            self._log.error(
                "worker died",
                worker=index,
                core=self._specs[index].core,
                pid=pid,
                cause=_cause(status),
            )

    def _when_again(self, index: int, now: float) -> float:
        """When to start the worker ``index``, which just died: at once, or after a pause."""
        if now - self._started[index] >= LONG_ENOUGH:
            self._early_deaths[index] = 0
            return now
        deaths = self._early_deaths[index]
        self._early_deaths[index] = deaths + 1
        return now + min(FIRST_WAIT * (1 << min(deaths, 10)), LONGEST_WAIT)

    def _start_waiting(self) -> None:
        now = time.monotonic()
        for index in [i for i, at in self._waiting.items() if at <= now]:
            del self._waiting[index]
            report = self._start(index)
            try:
                self._await_ready(index, report, RESTART_PATIENCE)
            except ParagliderError as error:
                self._log.error("worker did not start", worker=index, error=str(error))

    def _end_all(self) -> None:
        """End every worker: ask, wait, then kill."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._workers:
                os.kill(pid, number)  # not reaped yet, so the pid is still theirs
            deadline = time.monotonic() + PATIENCE
            while self._workers and time.monotonic() < deadline:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    signal.sigtimedwait((signal.SIGCHLD,), 0.05)
                    continue
                index = self._workers.pop(pid, None)
                if index is not None and status:
                    self._log.warning("worker ended badly", worker=index, cause=_cause(status))


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"

"""The supervisor: starts one worker a core, replaces those that die, ends them all.

Where live flows are counted there is the tracker besides, cared for in the same way; where flows
are offloaded, it looks every few seconds at what the kernel does with them (``watch``).

It speaks no network protocol and reads no packet. It waits for signals alone (sigtimedwait), so
nothing can interrupt it half-way. A worker that dies is started anew at once; one that dies again
before it has lived LONG_ENOUGH waits, twice as long each time, so that it does not spin. SIGTERM
or SIGINT ends the workers, and those that do not end within PATIENCE (a proxy worker: within what
it may take to drain) are killed.

A worker that starts tells through its report pipe when it serves, or why it cannot. Nobody waits
for one report alone: signals, and the deaths of other workers, are seen to meanwhile.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from paraglider.control import log
from paraglider.control.proxy import ProxySpec
from paraglider.control.tracker import TrackerSpec
from paraglider.control.watch import INTERVAL, Watch
from paraglider.control.worker import READY, WorkerSpec
from paraglider.errors import OperatorError, ParagliderError, PlatformError

LONG_ENOUGH: Final = 5.0
FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 16.0
PATIENCE: Final = 1.0
START_PATIENCE: Final = 60.0  # a worker takes over some half a million flows a second
#: seconds between two looks at the report pipes while a worker starts
LOOK: Final = 0.02

_END: Final = frozenset((signal.SIGTERM, signal.SIGINT))
_SIGNALS: Final = (signal.SIGCHLD, *_END, signal.SIGHUP)

Spec = WorkerSpec | ProxySpec | TrackerSpec
#: a process's life: run(spec, report pipe, pid of the supervisor) -> exit code
Run = Callable[[Any, int, int], int]


class Supervisor:
    """The workers of one Paraglider, and their care.

    ``all_ready`` is called once, when every one of them serves for the first time.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        run: Run,
        watch: Watch | None = None,
        all_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._specs = {spec.index: spec for spec in specs}
        self._run_worker = run
        self._watch = watch
        self._all_ready = all_ready
        self._workers: dict[int, int] = {}  # pid -> index
        self._started: dict[int, float] = {}  # index -> when last started
        self._reports: dict[int, int] = {}  # report pipe -> index of a worker that starts
        self._early_deaths = dict.fromkeys(self._specs, 0)
        self._waiting: dict[int, float] = {}  # index -> when to start again
        self._log: Any = log.logger()

    def run(self) -> int:
        """Start every worker, care for them until SIGTERM or SIGINT; the exit code.

        Raises the error of the first worker that could not start; then none is left running.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if self._start_all():
                kinds = WorkerSpec | ProxySpec
                workers = sum(isinstance(spec, kinds) for spec in self._specs.values())
                self._all_ready()
                self._log.info("ready", workers=workers)
            self._care()
        finally:
            self._end_all()
        self._log.info("ended")
        return 0

    def _start_all(self) -> bool:
        """Start every worker; False when a signal to end came before all were ready."""
        for index in self._specs:
            self._start(index)
        while self._reports:
            if _END & signal.sigpending():
                return False
            for pipe in self._heard(LOOK):
                self._hear(pipe)
        return True

    def _start(self, index: int) -> None:
        """Fork the worker ``index``; it is heard of through its report pipe."""
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
                self._log.exception(f"{spec.role} failed", **spec.labels())
            finally:
                os._exit(status)  # never back into the parent's code
        os.close(writing)
        self._workers[pid] = index
        self._reports[reading] = index

    def _heard(self, timeout: float) -> list[int]:
        """The report pipes with something to read, and those that were silent for too long."""
        reports = self._reports
        talking, _, _ = select.select(list(reports), [], [], timeout)
        before = time.monotonic() - START_PATIENCE
        silent = [pipe for pipe, index in reports.items() if self._started[index] < before]
        return [*talking, *(pipe for pipe in silent if pipe not in talking)]

    def _hear(self, pipe: int) -> None:
        """Take the report in ``pipe``; raises what it says. A worker without a word is killed."""
        index = self._reports.pop(pipe)
        os.set_blocking(pipe, False)
        try:
            message = os.read(pipe, 4096)
        except BlockingIOError:
            message = b""
            for pid in [pid for pid, i in self._workers.items() if i == index]:
                os.kill(pid, signal.SIGKILL)
        os.close(pipe)
        spec = self._specs[index]
        if message == READY:
            self._log.info(f"{spec.role} ready", **spec.labels())
            self._count_workers(spec)
        elif message[:1].isdigit():
            kind = OperatorError if message[:1] == b"1" else PlatformError
            raise kind(f"{spec.name}: {message[1:].decode()}")
        else:
            raise PlatformError(f"{spec.name} did not start", "the log above says why")

    def _care(self) -> None:
        while True:
            if self._watch is not None:
                self._watch.look(time.monotonic())
            timeout = LOOK if self._reports else 60.0 if self._watch is None else INTERVAL
            if self._waiting:
                pause = min(self._waiting.values()) - time.monotonic()
                timeout = min(timeout, max(0.0, pause))
            caught = signal.sigtimedwait(_SIGNALS, timeout)
            if caught is not None and caught.si_signo in _END:
                self._log.info("stopping", signal=signal.Signals(caught.si_signo).name)
                return
            if caught is not None and caught.si_signo == signal.SIGHUP:
                self._log.warning("no reload in this version; restart to read the file again")
            self._hear_all()
            self._reap()
            self._start_waiting()

    def _hear_all(self) -> None:
        """Take the reports of workers that were started again."""
        for pipe in self._heard(0.0):
            spec = self._specs[self._reports[pipe]]
            try:
                self._hear(pipe)
            except ParagliderError as error:
                self._log.error(f"{spec.role} did not start", **spec.labels(), error=str(error))

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
            spec = self._specs[index]
            self._log.error(f"{spec.role} died", **spec.labels(), pid=pid, cause=_cause(status))
            self._count_workers(spec)

    def _count_workers(self, changed: Spec) -> None:
        """Tell the watch how many workers serve, after one began or ended."""
        if self._watch is not None and isinstance(changed, WorkerSpec):
            starting = self._reports.values()
            serving = (i for i in self._workers.values() if i not in starting)
            self._watch.workers(sum(isinstance(self._specs[i], WorkerSpec) for i in serving))

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
            self._start(index)

    def _end_all(self) -> None:
        """End every worker: ask, wait, then kill."""
        drains = (spec.patience for spec in self._specs.values() if isinstance(spec, ProxySpec))
        asked = max((PATIENCE, *drains))
        for number, patience in ((signal.SIGTERM, asked), (signal.SIGKILL, PATIENCE)):
            for pid in self._workers:
                os.kill(pid, number)  # not reaped yet, so the pid is still theirs
            deadline = time.monotonic() + patience
            while self._workers and time.monotonic() < deadline:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    signal.sigtimedwait((signal.SIGCHLD,), 0.05)
                    continue
                index = self._workers.pop(pid, None)
                if index is not None and status:
                    spec = self._specs[index]
                    self._log.warning(
                        f"{spec.role} ended badly", **spec.labels(), cause=_cause(status)
                    )


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"

"""Process manager: forks the daemon's processes, replaces those that die, ends them at the end.

A process reports through a pipe when it is ready, or why it failed to start (``forking``). One that
dies is restarted at once; one that dies again within LONG_ENOUGH after a pause that doubles each
time. A process that hangs (``hangs``) or misbehaves (``exchange``) is killed and replaced. If a
fork fails, since the kernel has no process, descriptor or memory left, it is retried after such
pauses. Nothing that one process does ends the others or the supervisor.

Rules: a process inherits its initial state (``StartupState``); later changes are messages.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from paraglider.daemon import log
from paraglider.daemon.ipc import Kind
from paraglider.daemon.messages import Message
from paraglider.daemon.processes.child import Child, Owner, kill
from paraglider.daemon.processes.exchange import Exchange
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.processes.forking import error_of, fork
from paraglider.daemon.processes.hangs import Hangs
from paraglider.daemon.processes.loop import Loop
from paraglider.daemon.processes.spec import EXIT_TIMEOUT, Run, Spec
from paraglider.errors import ParagliderError, PlatformError
from paraglider.host.seccomp import ROLES, confined

LONG_ENOUGH: Final = 5.0
FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 16.0
START_TIMEOUT: Final = 60.0  # a worker restores about half a million flows a second


class ProcessManager:
    """Starts, watches, replaces and ends the processes of ``specs``."""

    def __init__(
        self,
        specs: Sequence[Spec],
        run: Run,
        loop: Loop,
        owner: Owner,
        faults: Faults | None = None,
        hangs: Hangs | None = None,
    ) -> None:
        self._faults = faults or Faults()
        self._hangs = hangs or Hangs()
        self._children = [Child(spec) for spec in specs]
        self._run = run
        self.loop = loop
        self._owner = owner
        self._exchange = Exchange(loop, owner, self._faults)
        self._strict = False
        self._log: Any = log.logger()

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children)

    def of(self, role: str) -> list[Child]:
        """The processes of ``role``."""
        return [child for child in self._children if child.spec.role == role]

    @property
    def starting(self) -> bool:
        """Whether a process is starting."""
        return any(child.report >= 0 for child in self._children)

    def start_all(self) -> None:
        """Fork all processes. Until ``started``, a failure to start is raised."""
        self._strict = True
        for child in self._children:
            if not child.spec.idle:
                self._start(child)

    def wake(self, child: Child) -> None:
        """Start ``child``, which was idle."""
        child.spec = replace(child.spec, idle=False)
        self._start(child)

    def started(self) -> None:
        """From now on a failure to start is logged, and the start is retried."""
        self._strict = False

    def restart(self, child: Child) -> None:
        """End ``child`` and start it again with the current state."""
        if child.pid:
            child.dismissed = time.monotonic()
            kill(child, signal.SIGTERM)

    def send(
        self, child: Child, message: Message | bytes, kind: Kind = Kind.MESSAGE, number: int = 0
    ) -> None:
        """See ``Exchange.send``."""
        self._exchange.send(child, message, kind, number)

    def wait(self) -> float:
        """Seconds until ``poll`` has something to do, at most."""
        now = time.monotonic()
        times = [child.again for child in self._children if child.again is not None]
        times += [c.started + START_TIMEOUT for c in self._children if c.report >= 0]
        times += [c.dismissed + _to_end(c) for c in self._children if c.dismissed]
        times += [c.inbox.muted for c in self._children if c.inbox.muted is not None]
        times.append(now + self._hangs.wait(now))
        return max(0.0, min(times) - now) if times else 3600.0

    def poll(self) -> None:
        """Reap exited processes, kill hanging ones, start those that are due."""
        now = time.monotonic()
        for child in self._children:
            if child.report >= 0 and child.started + START_TIMEOUT <= now:
                self._read_report(child)
            if child.dismissed and child.dismissed + _to_end(child) <= now:
                kill(child, signal.SIGKILL)
            if child.inbox.muted is not None and child.inbox.muted <= now:
                self._exchange.resume(child)
        if not self._hangs.wait(now):
            self._end_hanging(now)
        self._reap()
        for child in self._children:
            if child.again is not None and child.again <= time.monotonic():
                child.again = None
                self._start(child)

    def _end_hanging(self, now: float) -> None:
        """Kill hanging processes; they are replaced like dead ones."""
        self._hangs.begin_poll(now)
        for child in self._children:
            if not child.pid or (child.report >= 0 and not child.spec.heartbeat.is_watched):
                continue
            child.silence = self._hangs.silence(child.spec.heartbeat, child.started, now)
            if not self._hangs.hangs(child.pid, child.spec.heartbeat, child.silence, now):
                continue
            if not child.hung:
                child.hung = True
                self._log.error(
                    f"{child.spec.name}: no sign of life for {child.silence:.0f} s, killed",
                    pid=child.pid,
                    process=self._hangs.state(child.pid),
                    **self._owner.on_hang(child),
                )
            kill(child, signal.SIGKILL)

    def end_all(self) -> None:
        """End every process: by SIGTERM, then by SIGKILL after its ``exit_timeout``; one that does
        not end by that is given up after EXIT_TIMEOUT.
        """
        for child in self._children:  # reports of starting processes no longer matter
            self.loop.forget(child.report)
        running = {child.pid: child for child in self._children if child.pid}
        for child in running.values():
            kill(child, signal.SIGTERM)
        begun = killed = time.monotonic()
        asked = set(running)
        while running:
            now = time.monotonic()  # much later, if this process was stopped
            for pid in [pid for pid in asked if begun + running[pid].spec.exit_timeout <= now]:
                asked.remove(pid)
                kill(running[pid], signal.SIGKILL)
                killed = now
            over = not asked and now >= killed + EXIT_TIMEOUT
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # they have been reaped already
                return
            if pid == 0:
                if over:
                    return
                with self._faults.contained("what came in"):
                    self.loop.wait(0.05)
                continue
            if pid not in running:
                continue
            child = running.pop(pid)
            asked.discard(pid)
            self._clear(child)
            if status:
                cause = _cause(status)
                role = child.spec.role
                self._log.warning(
                    f"{role} exited with an error", **child.spec.labels(), cause=cause
                )

    def _start(self, child: Child) -> None:
        """Fork ``child``, or retry later; the result comes through its report pipe."""
        child.started = time.monotonic()
        try:
            child.spec = child.spec.updated(self._owner.startup_state())
            child.report, endpoint = fork(
                child, self._children, self._run, self.loop.leave, self._log
            )
        except (OSError, MemoryError, ParagliderError) as error:
            if self._strict:
                if isinstance(error, ParagliderError):
                    raise
                raise PlatformError(f"{child.spec.name} cannot be started: {error}") from error
            child.again = _when_again(child, time.monotonic())
            why = str(error) or type(error).__name__
            if why != child.trouble:
                self._log.error(f"{child.spec.name}: cannot be started, tried again", why=why)
            child.trouble = why
            return
        child.trouble = ""
        child.starts += 1
        try:
            self.loop.watch(child.report, lambda: self._read_report(child))
            self._exchange.open(child, endpoint)
        except OSError:  # its endpoint cannot be used; a dead process is restarted
            kill(child, signal.SIGKILL)

    def _read_report(self, child: Child) -> None:
        """Read the report of ``child``; without one after the timeout it is killed."""
        spec = child.spec
        try:
            report = os.read(child.report, 4096)
        except OSError:  # no report yet: timed out
            report = b""
            about = self._owner.on_hang(child)
            self._log.error(f"{spec.name}: takes too long to start, killed", **about)
            kill(child, signal.SIGKILL)
        self._close_report(child)
        error = error_of(spec, report)
        if error is None:
            child.confined = confined(child.pid)
            self._log.info(f"{spec.role} ready", **spec.labels())
            if spec.role in ROLES and not child.confined:
                self._log.warning(
                    f"{spec.role}: no seccomp filter for this process", **spec.labels()
                )
            with self._faults.contained(f"the start of the {spec.role}"):
                self._owner.on_ready(child)
        elif self._strict:
            raise error
        else:
            self._log.error(f"{spec.role} did not start", **spec.labels(), error=str(error))

    def _reap(self) -> None:
        """Reap every process that exited, and schedule its restart."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = next((child for child in self._children if child.pid == pid), None)
            if child is None:
                continue
            self._hangs.forget(pid)
            child.pid = 0
            if child.report >= 0:
                self._read_report(child)
            spec = child.spec
            child.exited, child.requested = time.monotonic(), child.dismissed > 0.0
            if child.requested:
                self._log.info(f"{spec.role} ended, restarting", **spec.labels())
                child.again = time.monotonic()
            else:
                cause = _cause(status)
                self._log.error(f"{spec.role} died", **spec.labels(), pid=pid, cause=cause)
                child.deaths.append(child.exited)
                child.again = _when_again(child, time.monotonic())
            self._clear(child)
            with self._faults.contained(f"the end of the {spec.role}"):
                self._owner.on_exit(child)

    def _clear(self, child: Child) -> None:
        """Release the resources of an exited process."""
        child.pid = 0
        child.dismissed = child.silence = 0.0
        child.hung = False
        child.inbox.clear()
        if child.report >= 0:
            self._close_report(child)
        self._exchange.close(child)

    def _close_report(self, child: Child) -> None:
        self.loop.forget(child.report)
        os.close(child.report)
        child.report = -1


def _to_end(child: Child) -> float:
    """Seconds that ``child`` has to exit after SIGTERM: it may still be starting."""
    return child.spec.exit_timeout + START_TIMEOUT


def _when_again(child: Child, now: float) -> float:
    """When to restart ``child``, which just died: at once, or after a pause."""
    if now - child.started >= LONG_ENOUGH:
        child.early_deaths = 0
        return now
    deaths = child.early_deaths
    child.early_deaths = deaths + 1
    return now + min(FIRST_WAIT * (1 << min(deaths, 10)), LONGEST_WAIT)


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"

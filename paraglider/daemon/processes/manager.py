"""The processes of one Paraglider: each is forked, heard, replaced when it dies, ended at the end.

A process that starts tells through its report pipe when it serves, or why it cannot; nobody waits
for one report alone. One that dies is started anew at once; one that dies again before it has
lived LONG_ENOUGH waits, twice as long each time, so that it does not spin. Every process has a
channel (``channel``) of its own to the hub, made before it is forked; one that sends what is no
message, or does not read, or hangs (``hangs``), is killed, and replaced like a dead one. One that
sends too much is heard in slices (``inbox``).

A process that cannot be forked, since the kernel has no process, descriptor or memory left, is
tried again, as one that dies early. Nothing that one process does, and no call for it that fails,
ends the others or the supervisor.

Rules: what a process is to know at its start it inherits (``Equipment``), everything later comes
through its channel. It inherits no other's channel, pipe or signal handling.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

from paraglider.daemon import log
from paraglider.daemon.processes.channel import (
    HEARD,
    Channel,
    ChannelClosedError,
    ChannelError,
    Message,
)
from paraglider.daemon.processes.child import Child, Owner, kill
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.processes.hangs import Hangs
from paraglider.daemon.processes.loop import Loop
from paraglider.daemon.processes.spec import PATIENCE, READY, Run, Spec
from paraglider.errors import OperatorError, ParagliderError, PlatformError
from paraglider.host.seccomp import ROLES, confined

LONG_ENOUGH: Final = 5.0
FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 16.0
START_PATIENCE: Final = 60.0  # a worker takes over some half a million flows a second


class Children:
    """The processes of ``specs``, cared for."""

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
        self._loop = loop
        self._owner = owner
        self._strict = False
        self._log: Any = log.logger()

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children)

    def of(self, role: str) -> list[Child]:
        """Those of ``role``."""
        return [child for child in self._children if child.spec.role == role]

    @property
    def starting(self) -> bool:
        """Whether a report is still awaited."""
        return any(child.report >= 0 for child in self._children)

    def start_all(self) -> None:
        """Fork them all. Until ``settle``, one that cannot start raises its error."""
        self._strict = True
        for child in self._children:
            if not child.spec.idle:
                self._start(child)

    def wake(self, child: Child) -> None:
        """Start ``child``, which was idle."""
        child.spec = replace(child.spec, idle=False)
        self._start(child)

    def settle(self) -> None:
        """From now on one that cannot start is logged, and tried again."""
        self._strict = False

    def dismiss(self, child: Child) -> None:
        """End ``child`` and start it anew with what has changed."""
        if child.pid:
            child.dismissed = time.monotonic()
            kill(child, signal.SIGTERM)

    def send(self, child: Child, message: Message) -> None:
        """Send ``message``; one that cannot be reached is ended. Nothing happens while none runs:
        what follows it inherits the state.
        """
        if child.channel is None:
            return
        try:
            child.channel.send(message)
        except ChannelError as error:
            self._fail(child, error)
        else:
            self._listen(child)

    def wait(self) -> float:
        """Seconds until ``look`` has something to do, at most."""
        now = time.monotonic()
        times = [child.again for child in self._children if child.again is not None]
        times += [c.started + START_PATIENCE for c in self._children if c.report >= 0]
        times += [c.dismissed + _to_end(c) for c in self._children if c.dismissed]
        times += [c.inbox.muted for c in self._children if c.inbox.muted is not None]
        times.append(now + self._hangs.wait(now))
        return max(0.0, min(times) - now) if times else 3600.0

    def look(self) -> None:
        """Note who ended, end who is silent for too long, start whose time has come."""
        now = time.monotonic()
        for child in self._children:
            if child.report >= 0 and child.started + START_PATIENCE <= now:
                self._report(child)
            if child.dismissed and child.dismissed + _to_end(child) <= now:
                kill(child, signal.SIGKILL)
            if child.inbox.muted is not None and child.inbox.muted <= now:
                self._hear(child)
        if not self._hangs.wait(now):
            self._look_for_hangs(now)
        self._reap()
        for child in self._children:
            if child.again is not None and child.again <= time.monotonic():
                child.again = None
                self._start(child)

    def _look_for_hangs(self, now: float) -> None:
        """Kill those that give no sign of life; they are replaced as dead ones are."""
        self._hangs.look(now)
        for child in self._children:
            if not child.pid or (child.report >= 0 and not child.spec.life.is_watched):
                continue
            child.silence = self._hangs.silence(child.spec.life, child.started, now)
            if not self._hangs.hangs(child.pid, child.spec.life, child.silence, now):
                continue
            if not child.hung:
                child.hung = True
                self._log.error(
                    f"{child.spec.name}: no sign of life for {child.silence:.0f} s, killed",
                    pid=child.pid,
                    process=self._hangs.state(child.pid),
                    **self._owner.hangs(child),
                )
            kill(child, signal.SIGKILL)

    def end_all(self) -> None:
        """End every process: ask, and kill each that takes longer than it may."""
        for child in self._children:  # what one says that starts is of no interest any more
            self._loop.forget(child.report)
        running = {child.pid: child for child in self._children if child.pid}
        for child in running.values():
            kill(child, signal.SIGTERM)
        begun = time.monotonic()
        asked = set(running)
        last = begun + max((child.spec.patience for child in running.values()), default=0.0)
        while running and time.monotonic() < last + PATIENCE:
            for pid in [
                pid for pid in asked if begun + running[pid].spec.patience <= time.monotonic()
            ]:
                asked.remove(pid)
                kill(running[pid], signal.SIGKILL)
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # somebody else has reaped them
                return
            if pid == 0:
                self._loop.wait(0.05)
                continue
            if pid not in running:
                continue
            child = running.pop(pid)
            asked.discard(pid)
            self._lost(child)
            if status:
                cause = _cause(status)
                role = child.spec.role
                self._log.warning(f"{role} ended badly", **child.spec.labels(), cause=cause)

    def _start(self, child: Child) -> None:
        """Fork ``child``, or try again later; it is heard of through its report pipe."""
        child.started = time.monotonic()
        try:
            self._fork(child)
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
        else:
            child.trouble = ""

    def _fork(self, child: Child) -> None:
        """Raises OSError or MemoryError where the kernel has no room for another process, and as
        ``Owner.equipment``; nothing is left of it then.
        """
        child.spec = child.spec.equipped(self._owner.equipment())
        ours, theirs = Channel.pair(HEARD)
        reading = writing = -1
        # Blocked until the child has left the loop: a signal meanwhile is not the parent's.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            child.spec.life.begin(child.started)
            parent = os.getpid()
            child.pid = os.fork()
            if child.pid == 0:
                os.close(reading)
                ours.close()
                self._be(child, replace(child.spec, channel=theirs), writing, parent)
        except (OSError, MemoryError):
            for end in (reading, writing):
                if end >= 0:
                    os.close(end)
            ours.close()
            theirs.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        child.starts += 1
        os.close(writing)
        theirs.close()
        child.report, child.channel = reading, ours
        try:
            self._loop.watch(reading, lambda: self._report(child))
            self._listen(child)
        except OSError:  # deaf as we are, it cannot stay; what has died is started again
            kill(child, signal.SIGKILL)

    def _be(self, child: Child, spec: Spec, writing: int, parent: int) -> NoReturn:
        """In the forked process: be what ``spec`` says, and end."""
        status = PlatformError.exit_code
        try:
            self._loop.leave()
            self._disown(child)
            status = self._run(spec, writing, parent)
        except BaseException:  # noqa: BLE001 - whatever it is, it ends this process and no other
            self._log.exception(f"{spec.role} failed", **spec.labels())
        finally:
            os._exit(status)  # never back into the parent's code

    def _disown(self, mine: Child) -> None:
        """In a forked child: what belongs to the others is closed."""
        for other in self._children:
            if other is not mine:
                other.spec.release()
                other.spec.life.close()
                if other.spec.counters is not None:
                    other.spec.counters.close()
            if other.channel is not None:
                other.channel.close()
            if other.report >= 0:
                os.close(other.report)

    def _report(self, child: Child) -> None:
        """Take the report of ``child``; one without a word after so long is killed."""
        spec = child.spec
        try:
            message = os.read(child.report, 4096)
        except OSError:  # nothing there yet: its time is over
            message = b""
            about = self._owner.hangs(child)
            self._log.error(f"{spec.name}: takes too long to start, killed", **about)
            kill(child, signal.SIGKILL)
        self._close_report(child)
        if message == READY:
            child.confined = confined(child.pid)
            self._log.info(f"{spec.role} ready", **spec.labels())
            if spec.role in ROLES and not child.confined:
                self._log.warning(f"{spec.role}: no filter of system calls here", **spec.labels())
            with self._faults.contained(f"the start of {spec.role}"):
                self._owner.came(child)
            return
        error: ParagliderError
        error = PlatformError(f"{spec.name} did not start", "the log above says why")
        if message[:1].isdigit():
            kind = OperatorError if message[:1] == b"1" else PlatformError
            error = kind(f"{spec.name}: {message[1:].decode(errors='replace')}")
        if self._strict:
            raise error
        self._log.error(f"{spec.role} did not start", **spec.labels(), error=str(error))

    def _listen(self, child: Child) -> None:
        channel = child.channel
        if channel is None:
            return
        if child.inbox.muted is None:
            self._loop.watch(channel, lambda: self._talk(child), writing=channel.waiting)
        else:
            self._loop.forget(channel)

    def _talk(self, child: Child) -> None:
        """Give what ``child`` says to the owner, and send it what waits."""
        channel = child.channel
        if channel is None:
            return
        try:
            messages = channel.receive()
            channel.flush()
        except ChannelError as error:
            self._fail(child, error)
            return
        child.inbox.put(messages)
        self._hear(child)

    def _hear(self, child: Child) -> None:
        """Give what ``child`` has said to the owner, as far as there is time for it."""
        channel = child.channel

        def take(message: Message) -> None:
            if child.channel is channel:  # else it was found out meanwhile
                with self._faults.contained(f"a message of {child.spec.role}"):
                    self._owner.heard(child, message)

        if child.inbox.handle(take):
            self._log.warning(f"{child.spec.role} sends too much", **child.spec.labels())
        self._listen(child)

    def _fail(self, child: Child, error: ChannelError) -> None:
        """The channel of ``child`` is worth nothing now, and so is ``child`` without it. One that
        is gone is ending, which is another event.
        """
        self._close_channel(child)
        if not isinstance(error, ChannelClosedError):
            self._log.error(f"{child.spec.role} ended", **child.spec.labels(), error=str(error))
            kill(child, signal.SIGKILL)

    def _reap(self) -> None:
        """Note every process that ended, and when it is to be started again."""
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
                self._report(child)
            spec = child.spec
            if child.dismissed:
                self._log.info(f"{spec.role} ended, to be started anew", **spec.labels())
                child.again = time.monotonic()
            else:
                cause = _cause(status)
                self._log.error(f"{spec.role} died", **spec.labels(), pid=pid, cause=cause)
                child.again = _when_again(child, time.monotonic())
            self._lost(child)
            with self._faults.contained(f"the end of {spec.role}"):
                self._owner.went(child)

    def _lost(self, child: Child) -> None:
        """The process is gone, and what it had with it."""
        child.pid = 0
        child.dismissed = child.silence = 0.0
        child.hung = False
        child.inbox.clear()
        if child.report >= 0:
            self._close_report(child)
        self._close_channel(child)

    def _close_report(self, child: Child) -> None:
        self._loop.forget(child.report)
        os.close(child.report)
        child.report = -1

    def _close_channel(self, child: Child) -> None:
        if child.channel is not None:
            self._loop.forget(child.channel)
            child.channel.close()
            child.channel = None


def _to_end(child: Child) -> float:
    """Seconds that ``child`` has to end after it was dismissed: it may be starting."""
    return child.spec.patience + START_PATIENCE


def _when_again(child: Child, now: float) -> float:
    """When to start ``child``, which just died: at once, or after a pause."""
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

"""The processes of one Paraglider: each is forked, heard, replaced when it dies, ended at the end.

A process that starts tells through its report pipe when it serves, or why it cannot; nobody waits
for one report alone. One that dies is started anew at once; one that dies again before it has
lived LONG_ENOUGH waits, twice as long each time, so that it does not spin. Every process has a
channel (``channel``) of its own to the hub, made before it is forked; one that sends what is no
message, or does not read, is ended, and replaced like a dead one.

Rules: what a process is to know at its start it inherits (``Equipment``), everything later comes
through its channel. It inherits no other's channel, pipe or signal handling.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Protocol, Self

from paraglider.config.model import Config
from paraglider.control import log
from paraglider.control.processes.channel import Channel, ChannelClosedError, ChannelError, Message
from paraglider.control.processes.counters import Counters
from paraglider.control.processes.live import LiveFlows
from paraglider.control.processes.loop import Loop
from paraglider.core.strategies import Registry
from paraglider.errors import OperatorError, ParagliderError, PlatformError
from paraglider.forwarding.services import States

#: what a process writes into its report pipe once it serves; anything else there is an error
READY: Final = b"ready"

#: roles whose processes carry flows
CARRIERS: Final = ("worker", "proxy worker")

LONG_ENOUGH: Final = 5.0
FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 16.0
PATIENCE: Final = 1.0
START_PATIENCE: Final = 60.0  # a worker takes over some half a million flows a second


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a process needs to know from its start on: what has changed since the first start.
    ``live`` is where offloaded flows are counted as they come and go, if they are, ``listed`` where
    the others are counted now and then.
    """

    config: Config
    states: States
    registry: Registry
    live: LiveFlows | None = None
    listed: LiveFlows | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """All that a process is told: its number among all, its end of the channel to the hub (from
    its fork on), where it writes what it counts, if it carries flows, and what its work needs. One
    that is ``idle`` is started when there is work for it.
    """

    role: ClassVar[str]
    index: int
    channel: Channel | None = field(default=None, kw_only=True)
    counters: Counters | None = field(default=None, kw_only=True)
    idle: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.role

    @property
    def patience(self) -> float:
        """Seconds that it may take to end."""
        return PATIENCE

    def labels(self) -> dict[str, int]:
        """What the log says of it beside its role."""
        return {}

    def equipped(self, equipment: Equipment) -> Self:
        """The same with what has changed meanwhile."""
        return self

    def release(self) -> None:
        """Close what is this process's alone; called in every other process."""


#: a process's life: run(spec, report pipe, pid of the supervisor) -> exit code
Run = Callable[[Any, int, int], int]


@dataclass(slots=True)
class Child:
    """One process that there is to be; ``pid`` is 0 while there is none.

    ``report`` is its report pipe while it starts, ``again`` when it is to be started again.
    ``dismissed`` is when it was asked to end, to be started anew with what has changed. ``starts``
    is how often it was started.
    """

    spec: Spec
    pid: int = 0
    started: float = 0.0
    report: int = -1
    channel: Channel | None = None
    early_deaths: int = 0
    again: float | None = None
    dismissed: float = 0.0
    starts: int = 0

    @property
    def serves(self) -> bool:
        """True while it runs and has said that it is ready."""
        return self.pid != 0 and self.report < 0


class Owner(Protocol):
    """Whose processes they are."""

    def equipment(self) -> Equipment:
        """What a process that starts now is to know."""

    def heard(self, child: Child, message: Message) -> None:
        """``child`` has sent ``message``."""

    def came(self, child: Child) -> None:
        """``child`` serves."""

    def went(self, child: Child) -> None:
        """``child`` is gone."""


class Children:
    """The processes of ``specs``, cared for."""

    def __init__(self, specs: Sequence[Spec], run: Run, loop: Loop, owner: Owner) -> None:
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
            os.kill(child.pid, signal.SIGTERM)

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
        return max(0.0, min(times) - now) if times else 3600.0

    def look(self) -> None:
        """Note who ended, end who is silent for too long, start whose time has come."""
        now = time.monotonic()
        for child in self._children:
            if child.report >= 0 and child.started + START_PATIENCE <= now:
                self._report(child)
            if child.dismissed and child.dismissed + _to_end(child) <= now:
                os.kill(child.pid, signal.SIGKILL)
        self._reap()
        for child in self._children:
            if child.again is not None and child.again <= time.monotonic():
                child.again = None
                self._start(child)

    def end_all(self) -> None:
        """End every process: ask, wait, then kill."""
        for child in self._children:  # what one says that starts is of no interest any more
            self._loop.forget(child.report)
        longest = max((child.spec.patience for child in self._children), default=PATIENCE)
        for number, patience in ((signal.SIGTERM, longest), (signal.SIGKILL, PATIENCE)):
            running = {child.pid: child for child in self._children if child.pid}
            for pid in running:
                os.kill(pid, number)  # not reaped yet, so the pid is still theirs
            deadline = time.monotonic() + patience
            while running and time.monotonic() < deadline:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    self._loop.wait(0.05)
                    continue
                if pid not in running:
                    continue
                child = running.pop(pid)
                self._lost(child)
                if status:
                    cause = _cause(status)
                    role = child.spec.role
                    self._log.warning(f"{role} ended badly", **child.spec.labels(), cause=cause)

    def _start(self, child: Child) -> None:
        """Fork ``child``; it is heard of through its report pipe."""
        ours, theirs = Channel.pair()
        child.spec = child.spec.equipped(self._owner.equipment())
        spec = replace(child.spec, channel=theirs)
        reading, writing = os.pipe()
        parent = os.getpid()
        child.started = time.monotonic()
        child.starts += 1
        # Blocked until the child has left the loop: a signal meanwhile is not the parent's.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        child.pid = os.fork()
        if child.pid == 0:
            status = PlatformError.exit_code
            try:
                self._loop.leave()
                os.close(reading)
                ours.close()
                self._disown(child)
                status = self._run(spec, writing, parent)
            except BaseException:  # noqa: BLE001 - whatever it is, it ends this process and no other
                self._log.exception(f"{spec.role} failed", **spec.labels())
            finally:
                os._exit(status)  # never back into the parent's code
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(writing)
        theirs.close()
        os.set_blocking(reading, False)
        child.report, child.channel = reading, ours
        self._loop.watch(reading, lambda: self._report(child))
        self._listen(child)

    def _disown(self, mine: Child) -> None:
        """In a forked child: what belongs to the others is closed."""
        for other in self._children:
            if other is not mine:
                other.spec.release()
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
        except BlockingIOError:
            message = b""
            os.kill(child.pid, signal.SIGKILL)
        self._close_report(child)
        if message == READY:
            self._log.info(f"{spec.role} ready", **spec.labels())
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
        if channel is not None:
            self._loop.watch(channel, lambda: self._talk(child), writing=channel.waiting)

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
        for message in messages:
            self._owner.heard(child, message)
        if child.channel is channel:
            self._listen(child)

    def _fail(self, child: Child, error: ChannelError) -> None:
        """The channel of ``child`` is worth nothing now, and so is ``child`` without it. One that
        is gone is ending, which is another event.
        """
        self._close_channel(child)
        if not isinstance(error, ChannelClosedError):
            self._log.error(f"{child.spec.role} ended", **child.spec.labels(), error=str(error))
            os.kill(child.pid, signal.SIGKILL)

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
            self._owner.went(child)

    def _lost(self, child: Child) -> None:
        """The process is gone, and what it had with it."""
        child.pid = 0
        child.dismissed = 0.0
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

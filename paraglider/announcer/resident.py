"""The process of `paraglider announce`: hears the daemon, and says what holds.

It ends on SIGTERM and SIGINT, and, if ExaBGP started it, when its standard input ends or its output
breaks. Before that it withdraws everything. It reads the file again when the daemon has.

Lives here: ``Resident``, ``Output`` (what routes are said to), ``reading``, ``once`` (for
a dry run), ``loop``.
Rules: never waits for anybody. One line of the log for each change, with its reason.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Protocol

from paraglider.announcer.routes import Policy, VipChange, VipRoutes, VipStatus
from paraglider.announcer.stream import StateStream
from paraglider.config.announce import AnnounceConfig
from paraglider.config.model import Config
from paraglider.config.steps import Steps
from paraglider.config.types import IPAddress
from paraglider.daemon import log
from paraglider.daemon.processes.loop import Loop
from paraglider.errors import OperatorError, ParagliderError, PlatformError
from paraglider.forward.load import loading
from paraglider.host.own_addresses import with_own_addresses

#: seconds in which everything is withdrawn at the end
ENDING: Final = 2.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_END: Final = frozenset((signal.SIGTERM, signal.SIGINT))
_STDIN: Final = 0


class Output(Protocol):
    """Says routes to another program; ``broken``: it is gone for good."""

    broken: bool

    @property
    def settled(self) -> bool:
        """Whether everything is said."""

    def attach(self, loop: Loop) -> None:
        """Wait for it on ``loop``."""

    def configure(self, config: AnnounceConfig) -> None:
        """The file has changed; raises ValueError if it lacks what is needed here."""

    def say(self, change: VipChange) -> None:
        """Say ``change``, now or later."""

    def poll(self, now: float) -> float:
        """Do what is due; returns the seconds until the next time."""

    def close(self) -> None:
        """Called at the end."""


def reading(path: Path, families: frozenset[int]) -> Steps[Config]:
    """Read the file, with the addresses of this host, in steps; raises ``OperatorError``."""
    loaded, _ = with_own_addresses((yield from loading(path)), families)
    yield
    return loaded.for_families(families)


def section_of(config: Config) -> AnnounceConfig:
    """Its section `announce`; raises ``OperatorError`` if there is none."""
    if config.announce is None:
        remedy = "add `announce: {}`, see docs/announce.md"
        raise OperatorError("the file has no `announce`, so no VIP is announced", remedy)
    return config.announce


class Resident:
    """Says by ``output`` what the daemon at ``socket`` tells of the VIPs of ``config``; ``reread``
    reads the file again.
    """

    def __init__(
        self,
        config: Config,
        output: Output,
        reread: Callable[[], Steps[Config]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._output = output
        self._reread = reread
        self._clock = clock
        policy = Policy.of(section_of(config))
        self._routes = VipRoutes(policy, config.announced, clock())
        self._stream = StateStream(config.control.socket, self, clock)
        self._read_at = clock()
        self._loads: int | None = None
        self._reading: Steps[Config] | None = None
        self._gone = False
        self._ends = False
        self._log: Any = log.logger()

    def run(self, loop: Loop, *, stdin: bool) -> None:
        """Until the end; ``stdin``: it ends when standard input does."""
        self._output.attach(loop)
        self._stream.attach(loop)
        if stdin and _is_pipe(_STDIN):
            loop.watch(_STDIN, lambda: self._drain(loop))
        while not (self._ends or self._output.broken):
            if _END & loop.wait(self.turn()):
                self._ends = True
        self._stream.close()
        self._routes.end(self._clock())
        self._say()
        until = self._clock() + ENDING
        while not (self._output.settled or self._output.broken) and self._clock() < until:
            loop.wait(min(self._output.poll(self._clock()), until - self._clock()))
        self._output.close()

    def turn(self) -> float:
        """Do what is due; returns the seconds until the next turn."""
        pause = self._stream.poll(self._clock())
        self._continue_reading()
        self._say()
        now = self._clock()
        pause = min(pause, self._output.poll(now), self._routes.wait(now))
        return 0.0 if self._reading is not None else pause

    def told(self, line: dict[str, Any]) -> None:
        """See ``stream.Listener``."""
        loads = line.get("loads")
        states = _states(line.get("vips"))
        if self._gone:
            self._gone = False
            self._log.info("the daemon answers", socket=self._config.control.socket)
        if isinstance(loads, int) and loads != self._loads:
            # At the start the file was read just now, unless the daemon came later.
            if self._loads is not None or self._clock() > self._read_at + 1.0:
                self._reading = self._reread()
            self._loads = loads
        self._routes.heard(states, self._clock(), whole=loads is not None)

    def gone(self, why: str) -> None:
        """See ``stream.Listener``."""
        if not self._gone:
            self._gone, self._loads = True, -1  # a daemon that comes back may have read another
            self._log.warning("the daemon is gone", why=why)
        self._routes.gone(why, self._clock())

    def _say(self) -> None:
        for change in self._routes.turn(self._clock()):
            self._log.info(
                "route changed", vip=str(change.vip), route=change.route.value, why=change.why
            )
            self._output.say(change)

    def _continue_reading(self) -> None:
        """Go on reading the file; one that cannot be read changes nothing."""
        if self._reading is None:
            return
        try:
            next(self._reading)
        except StopIteration as end:
            self._apply(end.value)
            self._reading = None
        except ParagliderError as error:
            self._log.error("the file cannot be read, as it was before", error=str(error))
            self._reading = None

    def _apply(self, config: Config) -> None:
        self._read_at = self._clock()
        announce = config.announce
        if announce is None:  # the daemon announces nothing any more
            self._routes.configure(Policy.of(section_of(self._config)), (), self._clock())
            return
        try:
            self._output.configure(announce)
        except ValueError as error:
            self._log.error("the file has changed, as it was before", error=str(error))
            return
        self._config = config
        self._routes.configure(Policy.of(announce), config.announced, self._clock())

    def _drain(self, loop: Loop) -> None:
        """Read and discard what ExaBGP says; its end is ours."""
        if not os.read(_STDIN, 1 << 16):
            loop.forget(_STDIN)
            self._ends = True


class _First:
    """Keeps the first line that the daemon tells, or why there is none."""

    def __init__(self) -> None:
        self.line: dict[str, Any] | None = None
        self.why = ""

    def told(self, line: dict[str, Any]) -> None:
        """See ``stream.Listener``."""
        self.line = self.line or line

    def gone(self, why: str) -> None:
        """See ``stream.Listener``."""
        self.why = why


def once(config: Config) -> list[VipChange]:
    """What is to be said now, of each VIP; raises ``PlatformError`` if no daemon tells."""
    first = _First()
    stream = StateStream(config.control.socket, first)
    with Loop(()) as loop:
        stream.attach(loop)
        while first.line is None and not first.why:
            loop.wait(stream.poll(time.monotonic()))
        stream.close()
    if first.line is None:
        raise PlatformError(first.why, "start the daemon, or see its log")
    policy = replace(Policy.of(section_of(config)), rise=0.0)
    routes = VipRoutes(policy, config.announced, 0.0)
    routes.heard(_states(first.line.get("vips")), 0.0, whole=True)
    return routes.turn(0.0)


def _states(plain: Any) -> dict[IPAddress, VipStatus]:
    """The states of a line; what is none is left out."""
    found: dict[IPAddress, VipStatus] = {}
    for vip, state in plain.items() if isinstance(plain, dict) else ():
        try:
            found[ip_address(vip)] = VipStatus.of(state)
        except ValueError:
            continue
    return found


def _is_pipe(number: int) -> bool:
    kind = os.fstat(number).st_mode
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)


def loop() -> Loop:
    """The loop of the process."""
    return Loop(_SIGNALS)

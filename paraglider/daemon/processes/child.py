"""One configured process, and its owner.

Lives here: ``Child``, ``Owner``, ``kill``.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from paraglider.daemon.ipc import Frame, IpcEndpoint
from paraglider.daemon.processes.inbox import Inbox
from paraglider.daemon.processes.spec import Spec, StartupState

#: unrequested exits within so many seconds by which a process keeps dying
DEATHS: Final = 3
DEATHS_WITHIN: Final = 60.0


@dataclass(slots=True)
class Child:
    """One configured process; ``pid`` is 0 while it is not running.

    ``report`` is its report pipe while it starts, ``again`` the time of its restart. ``dismissed``
    is when it was asked to exit for a restart with the current state. ``starts`` is how often it
    was started. ``silence`` is for how many seconds it has given no heartbeat although it could;
    ``hung``: it was killed for that. ``inbox`` has its messages that are not handled yet,
    ``trouble`` why it could not be forked. ``confined``: its seccomp filter is installed.
    ``exited`` is when it last exited, ``requested``: it was asked to; ``deaths`` are the times of
    the last exits that nobody asked for.
    """

    spec: Spec
    pid: int = 0
    started: float = 0.0
    report: int = -1
    endpoint: IpcEndpoint | None = None
    early_deaths: int = 0
    again: float | None = None
    dismissed: float = 0.0
    starts: int = 0
    confined: bool = False
    silence: float = 0.0
    hung: bool = False
    inbox: Inbox = field(default_factory=Inbox)
    trouble: str = ""
    exited: float = 0.0
    requested: bool = False
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS))

    @property
    def up(self) -> bool:
        """True while it runs, has reported that it is ready, and does not hang."""
        return self.pid != 0 and self.report < 0 and not self.hung

    def absence(self, now: float) -> float:
        """For how many seconds it does not serve: ``silence`` while it runs, else since its exit,
        or since its first start began.
        """
        if self.up or self.hung:
            return self.silence
        return now - (self.exited or self.started)

    def keeps_dying(self, now: float) -> bool:
        """Whether it has died DEATHS times within DEATHS_WITHIN seconds, and may be up between."""
        return len(self.deaths) == DEATHS and now - self.deaths[0] < DEATHS_WITHIN

    @property
    def pending(self) -> bool:
        """Whether it has not read all that was sent: wait, and send the newest state later."""
        return self.endpoint is not None and self.endpoint.pending


class Owner(Protocol):
    """The owner of the processes."""

    def startup_state(self) -> StartupState:
        """The state that a process starting now inherits."""

    def on_message(self, child: Child, frame: Frame) -> None:
        """Called when ``child`` has sent ``frame``."""

    def on_ready(self, child: Child) -> None:
        """Called when ``child`` is ready."""

    def on_exit(self, child: Child) -> None:
        """Called when ``child`` has exited."""

    def on_hang(self, child: Child) -> Mapping[str, str]:
        """Called when ``child`` hangs, before it is killed; returns what it was doing, for the
        log.
        """


def kill(child: Child, number: signal.Signals) -> None:
    """Send a signal to ``child`` if it runs: it is not reaped yet, so the pid is still its own."""
    if child.pid:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)

"""One configured process, and its owner.

Lives here: ``Child``, ``Owner``, ``kill``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from paraglider.daemon.ipc import Frame, IpcEndpoint
from paraglider.daemon.processes.inbox import Inbox
from paraglider.daemon.processes.spec import Spec, StartupState


@dataclass(slots=True)
class Child:
    """One configured process; ``pid`` is 0 while it is not running.

    ``report`` is its report pipe while it starts, ``again`` the time of its restart. ``dismissed``
    is when it was asked to exit for a restart with the current state. ``starts`` is how often it
    was started. ``silence`` is for how many seconds it has given no heartbeat although it could;
    ``hung``: it was killed for that. ``inbox`` has its messages that are not handled yet,
    ``trouble`` why it could not be forked. ``confined``: its seccomp filter is installed.
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

    @property
    def up(self) -> bool:
        """True while it runs, has reported that it is ready, and does not hang."""
        return self.pid != 0 and self.report < 0 and not self.hung

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

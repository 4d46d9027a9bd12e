"""One process that there is to be, and whom it belongs to.

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
    """One process that there is to be; ``pid`` is 0 while there is none.

    ``report`` is its report pipe while it starts, ``again`` when it is to be started again.
    ``dismissed`` is when it was asked to end, to be started anew with what has changed. ``starts``
    is how often it was started. ``silence`` is for how many seconds it has given no sign of life,
    as far as that is strange; ``hung`` tells that it was killed for that. ``inbox``
    is what it has sent and nobody has handled yet, ``trouble`` why it could not be forked.
    ``confined`` tells that the kernel has its filter of system calls.
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
    def serves(self) -> bool:
        """True while it runs, has said that it is ready, and does not hang."""
        return self.pid != 0 and self.report < 0 and not self.hung

    @property
    def pending(self) -> bool:
        """Whether it has yet to read what was sent: hold back, and send the newest state later."""
        return self.endpoint is not None and self.endpoint.pending


class Owner(Protocol):
    """Whose processes they are."""

    def startup_state(self) -> StartupState:
        """What a process that starts now is to know."""

    def on_message(self, child: Child, frame: Frame) -> None:
        """``child`` has sent ``frame``."""

    def on_ready(self, child: Child) -> None:
        """``child`` serves."""

    def on_exit(self, child: Child) -> None:
        """``child`` is gone."""

    def on_hang(self, child: Child) -> Mapping[str, str]:
        """``child`` hangs, and is killed after this call; what it was doing, for the log."""


def kill(child: Child, number: signal.Signals) -> None:
    """Send a signal to ``child`` where it runs: not reaped yet, so the pid is still its own."""
    if child.pid:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)

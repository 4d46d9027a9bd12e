"""Says routes to a program of the operator, which is run once a change.

    PROGRAM [ARGUMENTS] VIP announce|prefer_not|withdraw WHY

Lives here: ``ProgramOutput``, and ``arguments``.
Rules: never a shell. A program has DEADLINE seconds, then its process group is killed; one that
fails is run again after PAUSE seconds, with the newest route. One at a time for each VIP, MOST in
all. Its output goes to the log's place, standard error.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from paraglider.announcer.routes import VipChange, VipRoute
from paraglider.config.announce import AnnounceConfig
from paraglider.config.types import IPAddress
from paraglider.daemon import log
from paraglider.daemon.processes.loop import Loop

#: seconds for one run
DEADLINE: Final = 5.0
#: seconds until a run that failed is repeated
PAUSE: Final = 5.0
#: concurrent runs
MOST: Final = 8
#: seconds between two looks at programs that run, in case a signal was missed
_LOOK: Final = 0.5

_WORDS: Final = {
    VipRoute.ANNOUNCED: "announce",
    VipRoute.NOT_PREFERRED: "prefer_not",
    VipRoute.WITHDRAWN: "withdraw",
}


def arguments(config: AnnounceConfig, change: VipChange) -> list[str]:
    """The command that says ``change``."""
    return [*config.exec, str(change.vip), _WORDS[change.route], change.why]


@dataclass(slots=True)
class _Run:
    """A program that runs, for ``change``, until ``deadline``."""

    popen: subprocess.Popen[bytes]
    change: VipChange
    deadline: float


class ProgramOutput:
    """Runs the program of ``config``; ``clock`` is monotonic seconds."""

    def __init__(self, config: AnnounceConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._due: dict[IPAddress, VipChange] = {}
        self._again: dict[IPAddress, float] = {}  # after failures
        self._runs: dict[IPAddress, _Run] = {}
        self._said: dict[IPAddress, VipRoute] = {}
        self._log: Any = log.logger()
        self.broken = False

    @property
    def settled(self) -> bool:
        """Whether everything is said."""
        return not (self._due or self._runs)

    def attach(self, loop: Loop) -> None:
        """The end of a program is a signal, which ``loop`` waits for."""

    def configure(self, config: AnnounceConfig) -> None:
        """The file has changed: another program is told everything. Raises ValueError if it has
        none.
        """
        if not config.exec:
            raise ValueError("it has no `exec`")
        if config.exec != self._config.exec:
            for vip, route in self._said.items():
                self._due.setdefault(vip, VipChange(vip, route, "the program is another"))
            self._said.clear()
        self._config = config

    def say(self, change: VipChange) -> None:
        """Say ``change``, once what is being said of its VIP is said."""
        self._due[change.vip] = change
        self._again.pop(change.vip, None)

    def poll(self, now: float) -> float:
        """Go on; returns the seconds until the next time."""
        for vip, run in list(self._runs.items()):
            if run.popen.poll() is not None or now >= run.deadline:
                del self._runs[vip]
                self._ended(run, now)
        for vip, change in list(self._due.items()):
            if len(self._runs) >= MOST:
                break
            if vip not in self._runs and self._again.get(vip, -inf) <= now:
                del self._due[vip]
                self._start(change, now)
        times = [run.deadline for run in self._runs.values()]
        times += [self._again.get(vip, inf) for vip in self._due]
        until = min(times, default=inf) - now
        return max(0.0, min(until, _LOOK) if self._runs else until)

    def close(self) -> None:
        """End what still runs."""
        for run in self._runs.values():
            _kill(run.popen)
        self._runs.clear()

    def _start(self, change: VipChange, now: float) -> None:
        try:
            popen = subprocess.Popen(
                arguments(self._config, change),
                stdin=subprocess.DEVNULL,
                stdout=2,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self._failed(change, f"it does not start: {error.strerror or error}", now)
        else:
            self._runs[change.vip] = _Run(popen, change, now + DEADLINE)

    def _ended(self, run: _Run, now: float) -> None:
        status = run.popen.returncode
        _kill(run.popen)
        if status == 0:
            self._said[run.change.vip] = run.change.route
        elif status is None:
            self._failed(run.change, f"no end in {DEADLINE:g} s, killed", now)
        else:
            self._failed(run.change, f"exit code {status}", now)

    def _failed(self, change: VipChange, why: str, now: float) -> None:
        self._log.error(
            "program failed, run again", program=self._config.exec[0], vip=str(change.vip), why=why
        )
        self._due.setdefault(change.vip, change)
        self._again[change.vip] = now + PAUSE


def _kill(popen: subprocess.Popen[bytes]) -> None:
    """Kill its process group; a program that hangs in the kernel is not waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)

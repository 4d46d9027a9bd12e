"""The reloads that were asked for: one after the other, each with an answer.

A reload may have to wait until the host has been changed for it (``orders``); one that is asked
for meanwhile waits for its turn, and a file is read when its turn comes.

Lives here: ``Reloads``.
Rules: who asks is told once: what has changed, or why nothing has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol

from paraglider.control import log
from paraglider.control.hub.orders import AdjustingError
from paraglider.control.hub.reload import Change, Ending
from paraglider.control.settings import Read
from paraglider.errors import ParagliderError, PlatformError

#: reloads that may wait
MOST: Final = 16

#: for who has nothing to say about live flows: none is to end
NONE_ENDS: Final = Ending()

Done = Callable[[Change | ParagliderError], object]


class Body(Protocol):
    """What is needed of the hub."""

    def read(self) -> Read:
        """Read the file; raises ``ParagliderError``."""

    def reload(self, said_by: str, found: Read | None = None, ending: Ending = NONE_ENDS) -> Change:
        """Go on with what was found in it; raises ``ParagliderError``."""

    def flows_of(self, service: str) -> int:
        """The live flows of a service."""


@dataclass(slots=True)
class _Job:
    said_by: str
    done: Done
    ending: Ending
    found: Read | None = None


class Reloads:
    """Reloads of ``hub``."""

    def __init__(self, hub: Body) -> None:
        self._hub = hub
        self._jobs: deque[_Job] = deque()
        self._log: Any = log.logger()

    def ask(self, said_by: str, done: Done, *, force: bool = False) -> None:
        """Reload, now or when it is its turn, and tell ``done``; live flows end with ``force``
        alone.
        """
        if len(self._jobs) >= MOST:
            done(PlatformError("too many reloads at a time", "try again in a moment"))
            return
        self._jobs.append(_Job(said_by, done, Ending(cache(self._hub.flows_of), force)))
        if len(self._jobs) == 1:
            self.go_on()

    def attempt(self, said_by: str, done: Callable[[], object] = lambda: None) -> None:
        """Reload for whom nobody hears but the log; ``done`` is called after it."""

        def log_it(outcome: Change | ParagliderError) -> None:
            if isinstance(outcome, ParagliderError):
                why = "; ".join(str(outcome).splitlines())
                self._log.error("not reloaded, nothing has changed", by=said_by, why=why)
            elif not outcome.words and not outcome.restart:
                self._log.info("reloaded, nothing is other", by=said_by)
            done()

        self.ask(said_by, log_it)

    def go_on(self) -> None:
        """Do those that need not wait for the host."""
        while self._jobs:
            job = self._jobs[0]
            outcome: Change | ParagliderError
            try:
                if job.found is None:
                    job.found = self._hub.read()
                outcome = self._hub.reload(job.said_by, job.found, job.ending)
            except AdjustingError:
                return
            except ParagliderError as error:
                outcome = error
            self._jobs.popleft()
            job.done(outcome)

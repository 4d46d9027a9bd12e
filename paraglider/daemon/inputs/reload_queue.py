"""The queue of requested reloads: one at a time, each with an answer.

A reload may have to wait until the host has been changed for it (``reconcile.host``). Further
reloads queue, and each reads the file when its turn comes.

Lives here: ``ReloadQueue``.
Rules: every request is answered once, with the changes or the reason why there are none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from paraglider.daemon import log
from paraglider.daemon.inputs.reload import FlowLoss, ReloadOutcome
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.daemon.settings import Read
from paraglider.errors import ParagliderError, PlatformError

#: reloads that may be queued
MOST: Final = 16

#: the default: no live flow may end
NONE_ENDS: Final = FlowLoss()

Done = Callable[[ReloadOutcome | ParagliderError], object]


class ReloadSteps(Protocol):
    """What the queue needs of the controller."""

    def read(self) -> Read:
        """Read the file; raises ``ParagliderError``."""

    def reload(
        self, requested_by: str, found: Read | None = None, ending: FlowLoss = NONE_ENDS
    ) -> ReloadOutcome:
        """Apply the file as read; raises ``ParagliderError``."""

    def flows_of(self, service: str) -> int:
        """The live flows of a service, by the last written counters."""

    def report(self, then: Callable[[], object]) -> None:
        """Have the counters of flows written now; ``then`` is called when that is done."""


@dataclass(slots=True)
class _Job:
    requested_by: str
    done: Done
    force: bool
    found: Read | None = None
    #: whether flow counters were requested, and whether they have been written since
    asked: bool = False
    written: bool = False
    flows: dict[str, int] = field(default_factory=dict)


class ReloadQueue:
    """The queue of ``controller``."""

    def __init__(self, controller: ReloadSteps) -> None:
        self._controller = controller
        self._jobs: deque[_Job] = deque()
        self._log: Any = log.logger()

    def ask(self, requested_by: str, done: Done, *, force: bool = False) -> None:
        """Reload, now or in turn, and call ``done``; live flows may end only with ``force``."""
        if len(self._jobs) >= MOST:
            done(PlatformError("too many reloads at a time", "try again in a moment"))
            return
        self._jobs.append(_Job(requested_by, done, force))
        if len(self._jobs) == 1:
            self.go_on()

    def attempt(self, requested_by: str, done: Callable[[], object] = lambda: None) -> None:
        """Reload, and log the result; ``done`` is called after it."""

        def log_it(outcome: ReloadOutcome | ParagliderError) -> None:
            if isinstance(outcome, ParagliderError):
                why = "; ".join(str(outcome).splitlines())
                self._log.error(
                    "configuration not reloaded, nothing changed", by=requested_by, why=why
                )
            elif not outcome.words and not outcome.restart:
                self._log.info("configuration reloaded, no changes", by=requested_by)
            done()

        self.ask(requested_by, log_it)

    def go_on(self) -> None:
        """Run the queued reloads that need not wait for the host."""
        while self._jobs and self._jobs[0].asked == self._jobs[0].written:
            job = self._jobs[0]
            outcome: ReloadOutcome | ParagliderError
            try:
                if job.found is None:
                    job.found = self._controller.read()
                ending = FlowLoss(partial(self._flows, job), job.force)
                outcome = self._controller.reload(job.requested_by, job.found, ending)
            except HostPendingError:
                return
            except ParagliderError as error:
                outcome = error
            self._jobs.popleft()
            job.done(outcome)

    def _flows(self, job: _Job, service: str) -> int:
        """The live flows of a service; raises ``HostPendingError`` until the counters have been
        written.
        """

        def written() -> None:
            job.written = True

        if not job.asked:
            job.asked = True
            self._controller.report(written)
        if not job.written:
            raise HostPendingError
        if service not in job.flows:
            job.flows[service] = self._controller.flows_of(service)
        return job.flows[service]

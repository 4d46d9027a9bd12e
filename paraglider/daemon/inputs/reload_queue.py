"""The queue of requested reloads: one at a time, each with an answer.

A reload may have to wait until the host has been changed for it (``reconcile.host``). Further
reloads queue, and each reads the file when its turn comes. Signals that arrive while one of them is
queued are one reload with it, as are changes of the file, so that they do not fill the queue.

Lives here: ``ReloadQueue``.
Rules: every request is answered once, with the changes or the reason why there are none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from paraglider.config.steps import Steps
from paraglider.daemon import log
from paraglider.daemon.inputs.reload import FlowLoss, ReloadOutcome
from paraglider.daemon.reconcile.host import HostPendingError
from paraglider.daemon.settings import Read
from paraglider.errors import ParagliderError, PlatformError

#: reloads that may be queued
MOST: Final = 16

#: the default: no live flow may end
NONE_ENDS: Final = FlowLoss()


def _uncounted(_: str) -> int:
    raise HostPendingError


#: while no flow has been counted
UNCOUNTED: Final = FlowLoss(_uncounted)

Done = Callable[[ReloadOutcome | ParagliderError], object]


class ReloadSteps(Protocol):
    """What the queue needs of the controller."""

    def read(self) -> Steps[Read]:
        """Read the file in steps; raises ``ParagliderError``."""

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
    #: called after a reload whose result is logged; None: the result is an answer
    ends: list[Callable[[], object]] | None = None
    reading: Steps[Read] | None = None
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

    def request(self, requested_by: str, done: Done, *, force: bool = False) -> None:
        """Reload, now or in turn, and call ``done``; live flows may end only with ``force``."""
        self._add(_Job(requested_by, done, force))

    @property
    def busy(self) -> bool:
        """Whether a reload is in progress or queued."""
        return bool(self._jobs)

    def attempt(
        self,
        requested_by: str,
        done: Callable[[], object] = lambda: None,
        found: Read | None = None,
    ) -> None:
        """Reload, and log the result; ``done`` is called after it. ``found`` is applied instead of
        the file, if it is given.
        """
        for job in self._jobs:
            if job.ends is not None and job.requested_by == requested_by and job.reading is None:
                job.ends.append(done)
                return
        ends = [done]

        def log_it(outcome: ReloadOutcome | ParagliderError) -> None:
            if isinstance(outcome, ParagliderError):
                why = "; ".join(str(outcome).splitlines())
                self._log.error(
                    "configuration not reloaded, nothing changed", by=requested_by, why=why
                )
            elif not outcome.words and not outcome.restart:
                self._log.info("configuration reloaded, no changes", by=requested_by)
            for end in ends:
                end()

        self._add(_Job(requested_by, log_it, force=False, ends=ends, found=found))

    def _add(self, job: _Job) -> None:
        if len(self._jobs) >= MOST:
            job.done(PlatformError("too many reloads at a time", "try again in a moment"))
            return
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self.advance()

    def advance(self) -> None:
        """Run the queued reloads that need not wait for the host. A file is read one step a call,
        so that the supervisor never waits for the whole of it.
        """
        while self._jobs and self._jobs[0].asked == self._jobs[0].written:
            job = self._jobs[0]
            outcome: ReloadOutcome | ParagliderError
            try:
                if job.found is None and not self._read_on(job):
                    return
                ending = FlowLoss(partial(self._flows, job), job.force)
                outcome = self._controller.reload(job.requested_by, job.found, ending)
            except HostPendingError:
                return
            except ParagliderError as error:
                outcome = error
            self._jobs.popleft()
            job.done(outcome)

    @property
    def reading(self) -> bool:
        """Whether the file is being read: ``advance`` takes the next step."""
        return bool(self._jobs) and self._jobs[0].found is None

    def _read_on(self, job: _Job) -> bool:
        """Take the next step of reading the file; returns whether it was the last."""
        if job.reading is None:
            job.reading = self._controller.read()
        try:
            next(job.reading)
        except StopIteration as end:
            job.found = end.value
        return job.found is not None

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

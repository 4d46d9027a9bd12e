"""What the hub has the reconciler do, without ever waiting for it.

    adjust    the host is brought to another configuration. Who wants one to be taken over calls
              ``adjust``, is told HostPendingError, and is called again when the host is there; then
              the same call gives what was done, or raises why it was not
    hash, forget, count   one order each, its answer later

Lives here: ``HostRequests``, ``HostPendingError``.
Rules: one configuration at a time; who comes meanwhile is told HostPendingError too, and tries
again when ``adjusting`` is over. What was refused is nobody's to retry but the asker's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.host_helper.messages import HostConditions, error_of, refusal, told
from paraglider.daemon.host_helper.readings import Reading
from paraglider.daemon.processes.broadcast import Answers, Done
from paraglider.daemon.processes.channel import Message
from paraglider.errors import ParagliderError, PlatformError

#: seconds that a request may take for which programs are run, one after the other
PATIENCE: Final = 600.0
#: the same for one that runs no program
QUICK: Final = 10.0

Then = Callable[[ParagliderError | None], object]
"""Told that an order is done, or why it is not."""


class HostPendingError(ParagliderError):
    """The host is being brought to a configuration, or flows are being counted for it: who wanted
    it is called again when that is done.
    """

    exit_code = 2

    def __init__(self) -> None:
        super().__init__("the host is being changed", "try again in a moment")


class Asking(Protocol):
    """What is needed of ``questions.Broadcasts``."""

    def ask(self, whom: Iterable[int], message: dict[str, Any], until: float, done: Done) -> None:
        """Ask the processes ``whom``; raises ``PlatformError``."""


class HostRequests:
    """Orders for the process that ``reconciler`` gives the number of, None while there is none."""

    def __init__(self, questions: Asking, reconciler: Callable[[], int | None]) -> None:
        self._questions = questions
        self._reconciler = reconciler
        self._again: Callable[[], object] | None = None
        self._result: tuple[Config, Message] | None = None
        self._log: Any = log.logger()

    @property
    def adjusting(self) -> bool:
        """Whether the host is being brought to a configuration now."""
        return self._again is not None

    def adjust(self, config: Config, again: Callable[[], object]) -> list[str]:
        """What the host had to have done for ``config``.

        Raises ``HostPendingError`` when that is yet to be done, and ``again`` is called after it;
        ``ParagliderError`` when it could not be done, and nothing has changed.
        """
        if self.adjusting:
            raise HostPendingError
        result, self._result = self._result, None
        if result is not None and result[0] == config:
            if (error := error_of(result[1])) is not None:
                raise error
            return [str(line) for line in result[1].get("done", ())]

        def done(error: ParagliderError | None, answer: Message) -> None:
            self._again = None
            self._result = (config, answer if error is None else refusal(error))
            again()
            self._result = None  # who asked has gone on, or wants something else by now

        plain = config.model_dump(mode="json", by_alias=True)
        self._again = again
        try:
            self._order({"do": "adjust", "config": plain}, done)
        except ParagliderError:
            self._again = None
            raise
        raise HostPendingError

    def load(self, text: str, then: Then) -> None:
        """Have nft load ``text``."""
        self._tell({"do": "hash", "text": text}, then)

    def forget(
        self,
        marks: Iterable[int],
        datagrams: Iterable[tuple[str, int, int]],
        passing: Iterable[int] = (),
    ) -> None:
        """Have the kernel forget connections: see ``EndedConnections``."""

        def then(error: ParagliderError | None) -> None:
            if error is not None:
                self._log.error("connections that are over stay", error=str(error))

        ports = [list(item) for item in datagrams]
        every = {"marks": list(marks), "passing": list(passing), "datagrams": ports}
        self._tell({"do": "forget", **every}, then)

    def count(self, then: Callable[[Mapping[int, int] | None], object]) -> None:
        """How many connections the kernel has, by mark; None where nobody can say."""

        def done(error: ParagliderError | None, answer: Message) -> None:
            marks = answer.get("marks")
            bad = error is not None or not isinstance(marks, dict)
            then(None if bad else {int(mark): int(n) for mark, n in answer["marks"].items()})

        try:
            self._order({"do": "count"}, done, QUICK)
        except PlatformError:
            then(None)

    def read(self, families: Iterable[int], then: Callable[[Reading | None], object]) -> None:
        """Have the counters of the tables of ``families`` read; None where that cannot be."""

        def done(error: ParagliderError | None, answer: Message) -> None:
            reading = None
            if error is None:
                try:
                    reading = Reading.of(answer.get("reading"))
                except ValueError as invalid:
                    self._log.error(
                        "invalid message from the host helper", error=repr(invalid)[:200]
                    )
            then(reading)

        try:
            self._order({"do": "read", "families": list(families)}, done, QUICK)
        except PlatformError:
            then(None)

    def hear(
        self, message: Message, conditions: Conditions, renewed: Callable[[int], object]
    ) -> None:
        """What the reconciler said by itself: what is wrong with the host goes into ``conditions``;
        ``renewed`` is told of a family whose table of offloaded flows was made anew.
        """
        try:
            news = told(message)
        except (KeyError, TypeError, ValueError) as error:
            self._log.error("invalid message from the reconciler", error=repr(error)[:200])
            return
        if isinstance(news, HostConditions):
            found = {name: Condition(how, text) for name, (how, text) in news.found.items()}
            conditions.put("host", found)
            return
        for family in news.families:
            renewed(family)

    def _tell(self, order: Message, then: Then) -> None:
        try:
            self._order(order, lambda error, _: then(error))
        except PlatformError as error:
            then(error)

    def _order(
        self,
        order: Message,
        done: Callable[[ParagliderError | None, Message], object],
        patience: float = PATIENCE,
    ) -> None:
        """Send ``order``, which may take ``patience`` seconds; raises ``PlatformError`` where there
        is no host helper.
        """
        index = self._reconciler()
        if index is None:
            raise PlatformError("the reconciler is being started", "try again in a moment")

        def answered(answers: Answers) -> None:
            answer = answers.get(index, refusal(_gone()))
            done(error_of(answer), answer)

        self._questions.ask([index], order, time.monotonic() + patience, answered)


def _gone() -> PlatformError:
    return PlatformError(
        "the reconciler ended while it changed the host", "the log says why; try again"
    )

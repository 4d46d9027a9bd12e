"""Requests to the host helper; all are asynchronous.

    adjust    the host is brought to another configuration. The caller gets ``HostPendingError`` and
              is called again when the host has been changed; then the same call returns what was
              changed, or raises why it was not
    load, forget, count, read, attach   one request each, answered later

Lives here: ``HostRequests``, ``HostPendingError``.
Rules: one configuration at a time; other callers get ``HostPendingError`` meanwhile, and try again
when ``adjusting`` is false. A refused configuration is tried again by its caller only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.conditions.carrier import Switched
from paraglider.daemon.conditions.table import Condition, Conditions
from paraglider.daemon.ipc import Answers, Done
from paraglider.daemon.messages import (
    ApplyHost,
    CarrierDevices,
    ConnectionCounts,
    CountConnections,
    ForgetConnections,
    HostAddresses,
    HostChanged,
    HostConditions,
    HostNews,
    LoadRules,
    Message,
    Reading,
    ReadTables,
    Refusal,
    SwitchCarrier,
)
from paraglider.errors import ParagliderError, PlatformError
from paraglider.forward.offload.reconcile import KernelTables
from paraglider.host.seed import steering_seed

#: timeout, in seconds, of a request that runs programs
TIMEOUT: Final = 600.0
#: the same of a request that runs no program
QUICK: Final = 10.0

Then = Callable[[ParagliderError | None], object]
"""Called when a request has been answered, with the error if it failed."""


class HostPendingError(ParagliderError):
    """The host is being changed for a configuration, or flows are being counted for it: the caller
    is called again when that is done.
    """

    exit_code = 2

    def __init__(self) -> None:
        super().__init__("the host is being changed", "try again in a moment")


class Asking(Protocol):
    """What is needed of ``ipc.Broadcasts``."""

    def request(self, to: Iterable[int], message: Message, deadline: float, done: Done) -> None:
        """Send a request to the processes ``to``; raises ``PlatformError``."""


class HostRequests:
    """Requests to the host helper; ``reconciler`` returns its process number, None while it is not
    running. ``addresses`` is what it last told of this host's addresses.
    """

    def __init__(self, requests: Asking, reconciler: Callable[[], int | None]) -> None:
        self._requests = requests
        self._reconciler = reconciler
        self._again: Callable[[], object] | None = None
        self._result: tuple[Config, Message] | None = None
        self.addresses: HostAddresses | None = None
        self._log: Any = log.logger()

    @property
    def adjusting(self) -> bool:
        """Whether a change of the host is in progress."""
        return self._again is not None

    def adjust(self, config: Config, again: Callable[[], object]) -> list[str]:
        """Change the host for ``config``; returns the changes.

        Raises ``HostPendingError`` while that is in progress, and calls ``again`` when it is done;
        raises ``ParagliderError`` if it failed, then nothing has changed.
        """
        if self.adjusting:
            raise HostPendingError
        result, self._result = self._result, None
        if result is not None and result[0] == config:
            if isinstance(result[1], Refusal):
                raise result[1].to_error()
            return list(result[1].done) if isinstance(result[1], HostChanged) else []

        def done(error: ParagliderError | None, answer: Message) -> None:
            self._again = None
            self._result = (config, answer if error is None else Refusal.of(error))
            again()
            self._result = None  # the caller has given up, or has another configuration by now

        self._again = again
        try:
            self._order(ApplyHost(config=config), done)
        except ParagliderError:
            self._again = None
            raise
        raise HostPendingError

    def load(self, text: str, then: Then) -> None:
        """Have nft load ``text``."""
        self._send(LoadRules(text=text), then)

    def kernel_tables(self, config: Config, before: KernelTables | None = None) -> KernelTables:
        """The reconciler of the kernel tables of ``config``; replaces ``before``."""
        seed = partial(steering_seed, config.seed)
        return KernelTables(config, before, load=self.load, seed=seed, log=self._log)

    def forget(
        self,
        marks: Iterable[int],
        datagrams: Iterable[tuple[str, int, int]],
        passing: Iterable[int] = (),
    ) -> None:
        """Have connections deleted from conntrack: see ``EndedConnections``."""

        def then(error: ParagliderError | None) -> None:
            if error is not None:
                self._log.error("ended connections not deleted", error=str(error))

        every = ForgetConnections(
            marks=tuple(marks), passing=tuple(passing), datagrams=tuple(datagrams)
        )
        self._send(every, then)

    def count(self, then: Callable[[Mapping[int, int] | None], object]) -> None:
        """Count the kernel's connections by mark; None if they cannot be counted."""

        def done(_: ParagliderError | None, answer: Message) -> None:
            then(answer.marks if isinstance(answer, ConnectionCounts) else None)

        try:
            self._order(CountConnections(), done, QUICK)
        except PlatformError:
            then(None)

    def read(self, families: Iterable[int], then: Callable[[Reading | None], object]) -> None:
        """Have the counters of the tables of ``families`` read; None if they cannot be read."""

        def done(_: ParagliderError | None, answer: Message) -> None:
            then(answer if isinstance(answer, Reading) else None)

        try:
            self._order(ReadTables(families=tuple(families)), done, QUICK)
        except PlatformError:
            then(None)

    def attach(self, on: bool, then: Switched) -> None:
        """Have the BPF program attached to the interfaces, or detached from all of them."""

        def done(error: ParagliderError | None, answer: Message) -> None:
            if isinstance(answer, CarrierDevices):
                then(answer)
            else:
                then(error or PlatformError("the host helper gave no answer"))

        try:
            self._order(SwitchCarrier(on=on), done, QUICK)
        except PlatformError as error:
            then(error)

    def on_message(
        self, message: HostNews, conditions: Conditions, renewed: Callable[[int], object]
    ) -> None:
        """Handle an unrequested message of the host helper: conditions of the host go into
        ``conditions``, its addresses to ``addresses``; ``renewed`` is called for a family whose
        table of offloaded flows was restored.
        """
        if isinstance(message, HostConditions):
            found = {name: Condition(how, text) for name, (how, text) in message.found.items()}
            conditions.report("host", found)
        elif isinstance(message, HostAddresses):
            self.addresses = message
        else:
            for family in message.families:
                renewed(family)

    def _send(self, order: Message, then: Then) -> None:
        try:
            self._order(order, lambda error, _: then(error))
        except PlatformError as error:
            then(error)

    def _order(
        self,
        order: Message,
        done: Callable[[ParagliderError | None, Message], object],
        timeout: float = TIMEOUT,
    ) -> None:
        """Send ``order`` with a timeout of ``timeout`` seconds; raises ``PlatformError`` if no
        host helper is running.
        """
        index = self._reconciler()
        if index is None:
            raise PlatformError("the host helper is being started", "try again in a moment")

        def answered(answers: Answers) -> None:
            answer = answers.get(index, Refusal.of(_gone()))
            done(answer.to_error() if isinstance(answer, Refusal) else None, answer)

        self._requests.request([index], order, time.monotonic() + timeout, answered)


def _gone() -> PlatformError:
    return PlatformError(
        "the host helper ended while it changed the host", "the log says why; try again"
    )

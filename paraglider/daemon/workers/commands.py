"""What a process with flows does with the hub's messages: states and flows.

    states    the states and weights of backends that changed, and the store's version
    config    another configuration, with the states and weights of its backends, and the version
    suspend   the services whose policies are not to be called, all of them
    flows     list flows, some at most
    kill      end flows
    report    answered when the numbers of all backends have been written anew

Lives here: ``Commands``, called by the tick of a worker, whatever carries its flows (``Subject``).
Rules: a tick takes SLICE seconds at most besides what a change of the pools costs; a walk over
the flows goes on at the next tick where it stopped. The answer to message ``id`` is ``re``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from paraglider.config.model import Config
from paraglider.daemon.processes.channel import Channel, Message
from paraglider.daemon.processes.counters import Writer
from paraglider.daemon.processes.heartbeat import Life
from paraglider.forward.flows import Match
from paraglider.forward.services import States

#: seconds that a tick may spend on walks: a 25th of the time between two ticks
SLICE: Final = 0.002
#: flows that are looked at between two looks at the clock
_AT_ONCE: Final = 256
#: flows that one answer lists at most
MOST_LISTED: Final = 1000
#: walks that may wait; with more, the next is refused
_MOST_WALKS: Final = 32


class View(Protocol):
    """The flows of a subject: see ``forward.flows.FlowView``."""

    def walk(self, match: Match) -> Iterator[Any | None]:
        """A flow that ``match`` means or None, for every flow; one may come twice."""

    def describe(self, flow: Any, now: float) -> dict[str, Any]:
        """What there is to say of a flow; nothing of one that has ended since."""

    def forget(self, flow: Any, now: float) -> bool:
        """End a flow; False when it has ended already."""


class Subject(Protocol):
    """What the commands are for: the packet path of a worker, or what else carries flows."""

    @property
    def view(self) -> View | None:
        """Its flows, None where it knows of none."""

    def become(self, config: Config) -> None:
        """Carry flows by ``config`` from now on; those that there are keep their backends."""

    def put(self, states: States) -> None:
        """Give the backends these states and weights."""

    def suspend(self, services: list[str]) -> None:
        """Call the policies of all services but of these."""


#: one step of a walk; True when it was the last
Step = Callable[[float], bool]


class Commands:
    """The controller's messages in ``channel``, for ``subject``, whose numbers ``writer`` writes.

    The version of the states that are applied goes into ``life``, where the controller reads it.
    """

    def __init__(
        self,
        channel: Channel,
        subject: Subject,
        life: Life,
        writer: Writer | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._channel = channel
        self._subject = subject
        self._life = life
        self._writer = writer
        self._clock = clock
        self._walks: list[Step] = []

    @property
    def busy(self) -> bool:
        """Whether a next tick has something to do, whatever the hub says."""
        return bool(self._walks) or self._channel.waiting

    def tick(self, now: float) -> None:
        """Do what was asked for, or a slice of it; raises ``ChannelError`` when the hub is gone."""
        if self._channel.waiting:
            self._channel.flush()
        for message in self._channel.receive():
            self._take(message, now)
        end = self._clock() + SLICE
        while self._walks and self._clock() < end:
            if self._walks[0](now):
                del self._walks[0]

    def _take(self, message: Message, now: float) -> None:
        kind = message["do"]
        if kind == "states":
            self._subject.put(message["states"])
            self._life.applied = message["version"]
        elif kind == "config":
            self._subject.become(Config.model_validate(message["config"]))
            self._subject.put(message["states"])
            self._life.applied = message["version"]
        elif kind == "suspend":
            self._subject.suspend(message["services"])
        elif kind == "report":
            self._walks.append(self._reporter(message, self._writer))
        elif kind in ("flows", "kill"):
            self._walk(message)

    def _walk(self, message: Message) -> None:
        view = self._subject.view
        wanted = message["do"] == "flows"
        if wanted and len(self._walks) >= _MOST_WALKS:
            self._answer(message, {"error": "too many questions at a time"})
        elif view is None:
            self._answer(message, {"flows": [], "more": False} if wanted else {"killed": 0})
        else:
            flows = view.walk(Match.of(message["match"]))
            walk = (
                self._lister(message, view, flows) if wanted else self._killer(message, view, flows)
            )
            self._walks.append(walk)

    def _reporter(self, message: Message, writer: Writer | None) -> Step:
        end = 0 if writer is None else writer.walks + 2  # one may have begun

        def step(_now: float) -> bool:
            if writer is not None and writer.walks < end:
                writer.tick()
                return False
            self._answer(message, {})
            return True

        return step

    def _lister(self, message: Message, view: View, flows: Iterator[Any | None]) -> Step:
        limit = min(message["limit"], MOST_LISTED)
        found: dict[int, Any] = {}  # by identity, for a walk may meet a flow twice

        def step(now: float) -> bool:
            for _ in range(_AT_ONCE):
                try:
                    flow = next(flows)
                except StopIteration:
                    break
                if flow is None or id(flow) in found:
                    continue
                if len(found) == limit:
                    self._list(message, view, found, now, more=True)
                    return True
                found[id(flow)] = flow
            else:
                return False
            self._list(message, view, found, now, more=False)
            return True

        return step

    def _list(
        self, message: Message, view: View, found: dict[int, Any], now: float, *, more: bool
    ) -> None:
        listed = (view.describe(flow, now) for flow in found.values())
        self._answer(message, {"flows": [words for words in listed if words], "more": more})

    def _killer(self, message: Message, view: View, flows: Iterator[Any | None]) -> Step:
        killed = 0

        def step(now: float) -> bool:
            nonlocal killed
            for _ in range(_AT_ONCE):
                try:
                    flow = next(flows)
                except StopIteration:
                    self._answer(message, {"killed": killed})
                    return True
                if flow is not None:
                    killed += view.forget(flow, now)
            return False

        return step

    def _answer(self, message: Message, answer: dict[str, Any]) -> None:
        if "id" in message:
            self._channel.send({"re": message["id"], **answer})

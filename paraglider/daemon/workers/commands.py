"""Handles the supervisor's messages in a process that has flows (``messages.ToWorker``).

Lives here: ``Commands``, called by a worker's tick; it acts on a ``Subject``: the packet path of a
worker, or a proxy.
Rules: a tick takes at most SLICE seconds, plus the cost of a change of states; a walk over the
flows continues at the next tick.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from paraglider.config.model import Config
from paraglider.daemon.ipc import Frame, IpcEndpoint, Kind
from paraglider.daemon.messages import (
    MOST_UNPLACED,
    Acknowledged,
    ApplyConfig,
    FlowList,
    KilledFlows,
    KillFlows,
    ListFlows,
    Message,
    Refusal,
    SetCarrier,
    SetStates,
    SuspendPolicies,
    UnplacedServices,
    WriteCounters,
)
from paraglider.daemon.shared_memory.counters import CounterWriter
from paraglider.daemon.shared_memory.heartbeat import Heartbeat
from paraglider.errors import PlatformError
from paraglider.forward.flows import Match
from paraglider.forward.services import States

#: seconds that a tick may spend on walks: a 25th of the time between two ticks
SLICE: Final = 0.002
#: flows visited between two reads of the clock
_AT_ONCE: Final = 256
#: walks that may be queued; further ones are refused
_MOST_WALKS: Final = 32


class FlowSource(Protocol):
    """The flows of a subject: see ``forward.flows.FlowView``."""

    def walk(self, match: Match) -> Iterator[Any | None]:
        """For every flow: its key if ``match`` selects it, else None; a flow may come twice."""

    def describe(self, flow: Any, now: float) -> dict[str, Any]:
        """Describe a flow; empty if it has ended."""

    def forget(self, flow: Any, now: float) -> bool:
        """End a flow; False if it has ended already."""


class Subject(Protocol):
    """What the commands act on: the packet path of a worker, or the proxy of a proxy worker."""

    @property
    def view(self) -> FlowSource | None:
        """Its flows; None if it keeps none."""

    def apply_config(self, config: Config) -> None:
        """Apply ``config``; existing flows keep their backends."""

    def set_states(self, states: States) -> None:
        """Set the states and weights of the backends."""

    def suspend(self, services: list[str]) -> None:
        """Suspend the policies of these services, and enable those of all others."""

    def carry(self, on: bool) -> None:
        """Have BPF carry flows where their services want it, or carry them all."""


#: one step of a walk; True when it was the last
Step = Callable[[float], bool]


class Commands:
    """Handles the messages of ``endpoint`` for ``subject``, whose counters ``writer`` writes.

    Writes the version of the applied states into ``life``, where the controller reads it.
    """

    def __init__(
        self,
        endpoint: IpcEndpoint,
        subject: Subject,
        life: Heartbeat,
        writer: CounterWriter | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._endpoint = endpoint
        self._subject = subject
        self._life = life
        self._writer = writer
        self._clock = clock
        self._walks: list[Step] = []
        self._unplaced: tuple[str, ...] | None = None

    @property
    def busy(self) -> bool:
        """Whether the next tick has work, even without new messages."""
        return bool(self._walks) or self._endpoint.pending

    def tick(self, now: float) -> None:
        """Handle what was received, or a slice of it.

        Raises ``EndpointError`` when the supervisor has closed its end.
        """
        if self._endpoint.pending:
            self._endpoint.flush()
        for frame in self._endpoint.receive():
            self._handle(frame)
        end = self._clock() + SLICE
        while self._walks and self._clock() < end:
            if self._walks[0](now):
                del self._walks[0]

    def report_unplaced(self, services: tuple[str, ...] | None) -> None:
        """Send the names of the services for which the kernel has no room, if that is not what was
        sent last; None: they are not known. Raises ``EndpointError`` as ``tick``.
        """
        if services is not None and services != self._unplaced:
            self._unplaced = services
            self._endpoint.send(UnplacedServices(services=services[:MOST_UNPLACED]))

    def _handle(self, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, SetStates):
            self._subject.set_states(message.states)
            self._life.applied = message.version
        elif isinstance(message, ApplyConfig):
            self._subject.apply_config(message.config)
            self._subject.set_states(message.states)
            self._life.applied = message.version
        elif isinstance(message, SuspendPolicies):
            self._subject.suspend(list(message.services))
        elif isinstance(message, SetCarrier):
            self._subject.carry(message.on)
            if frame.kind is Kind.REQUEST:
                self._answer(frame.number, Acknowledged())
        elif isinstance(message, WriteCounters):
            self._walks.append(self._counter_writer(frame.number, self._writer))
        elif isinstance(message, ListFlows):
            self._list_flows(frame.number, message)
        elif isinstance(message, KillFlows):
            self._kill_flows(frame.number, message)

    def _list_flows(self, number: int, message: ListFlows) -> None:
        view = self._subject.view
        if len(self._walks) >= _MOST_WALKS:
            error = PlatformError("too many requests at a time", "try again in a moment")
            self._answer(number, Refusal.of(error))
        elif view is None:
            self._answer(number, FlowList(flows=(), more=False))
        else:
            self._walks.append(self._lister(number, message, view))

    def _kill_flows(self, number: int, message: KillFlows) -> None:
        view = self._subject.view
        if view is None:
            self._answer(number, KilledFlows(killed=0))
        else:
            self._walks.append(self._killer(number, message, view))

    def _counter_writer(self, number: int, writer: CounterWriter | None) -> Step:
        end = 0 if writer is None else writer.walks + 2  # one may have begun

        def step(_now: float) -> bool:
            if writer is not None and writer.walks < end:
                writer.tick()
                return False
            self._answer(number, Acknowledged())
            return True

        return step

    def _lister(self, number: int, message: ListFlows, view: FlowSource) -> Step:
        flows = view.walk(message.match.parsed())
        found: dict[int, Any] = {}  # by identity, for a walk may meet a flow twice

        def end(now: float, *, more: bool) -> bool:
            described = (view.describe(flow, now) for flow in found.values())
            rows = tuple(row for row in described if row)
            self._answer(number, FlowList(flows=rows, more=more))
            return True

        def step(now: float) -> bool:
            for _ in range(_AT_ONCE):
                try:
                    flow = next(flows)
                except StopIteration:
                    return end(now, more=False)
                if flow is None or id(flow) in found:
                    continue
                if len(found) == message.limit:
                    return end(now, more=True)
                found[id(flow)] = flow
            return False

        return step

    def _killer(self, number: int, message: KillFlows, view: FlowSource) -> Step:
        flows = view.walk(message.match.parsed())
        killed = 0

        def step(now: float) -> bool:
            nonlocal killed
            for _ in range(_AT_ONCE):
                try:
                    flow = next(flows)
                except StopIteration:
                    self._answer(number, KilledFlows(killed=killed))
                    return True
                if flow is not None:
                    killed += view.forget(flow, now)
            return False

        return step

    def _answer(self, number: int, answer: Message) -> None:
        self._endpoint.send(answer, Kind.ANSWER, number)

"""The supervisor's requests to a process with flows: in slices, bounded, and answered once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.daemon.ipc import Frame, IpcEndpoint, Kind, encode
from paraglider.daemon.messages import (
    FROM_ROLE,
    MOST_LISTED,
    TO_ROLE,
    Acknowledged,
    ApplyConfig,
    FlowList,
    FlowMatch,
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
from paraglider.daemon.shared_memory.counters import ROWS_A_TICK, Counters, CounterWriter
from paraglider.daemon.shared_memory.heartbeat import Heartbeat
from paraglider.daemon.workers.commands import _AT_ONCE, _MOST_WALKS, SLICE, Commands
from paraglider.forward.flows import Match
from paraglider.forward.services import States


class Flows:
    """Flows that are numbers; -1 has ended meanwhile."""

    def __init__(self, flows: list[Any]) -> None:
        self.flows = flows
        self.ended: list[Any] = []
        self.matches: list[Match] = []

    def walk(self, match: Match) -> Iterator[Any | None]:
        """See ``commands.FlowSource``."""
        self.matches.append(match)
        return iter(self.flows)

    def describe(self, flow: Any, now: float) -> dict[str, Any]:
        """See ``commands.FlowSource``."""
        return {} if flow == -1 else {"flow": flow, "at": now}

    def forget(self, flow: Any, now: float) -> bool:
        """See ``commands.FlowSource``."""
        self.ended.append(flow)
        return bool(flow != -1)


class Subject:
    """Records the calls."""

    def __init__(self, view: Flows | None) -> None:
        self.view = view
        self.states: list[States] = []
        self.configs: list[Config] = []
        self.suspended: list[str] = []
        self.carried: list[bool] = []

    def apply_config(self, config: Config) -> None:
        """See ``commands.Subject``."""
        self.configs.append(config)

    def set_states(self, states: States) -> None:
        """See ``commands.Subject``."""
        self.states.append(states)

    def suspend(self, services: list[str]) -> None:
        """See ``commands.Subject``."""
        self.suspended = services

    def carry(self, on: bool) -> None:
        """See ``commands.Subject``."""
        self.carried.append(on)


class Source:
    """Very many backends; counts how often each was read."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def figures(self) -> dict[str, int]:
        """See ``counters.CounterSource``."""
        return {}

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """See ``counters.CounterSource``."""
        for number in range(10 * ROWS_A_TICK):
            self.asked[str(number)] += 1
            yield "web", str(number), {"flows": number}


EVERY = FlowMatch()


class Work:
    """Commands for ``view``, and the supervisor's end. A slice's part takes ``step`` seconds."""

    def __init__(self, view: Flows | None, step: float = 0.0) -> None:
        self.supervisor, theirs = IpcEndpoint.pair(FROM_ROLE["worker"], TO_ROLE["worker"])
        self.subject = Subject(view)
        self._time = 0.0
        self._step = step
        self.source = Source()
        self.writer = CounterWriter(Counters(), self.source)
        self.heartbeat = Heartbeat()
        self.commands = Commands(theirs, self.subject, self.heartbeat, self.writer, self._clock)

    def _clock(self) -> float:
        self._time += self._step
        return self._time

    def send(self, message: Message, number: int = 0) -> None:
        """Send a message, or the request ``number``."""
        kind = Kind.REQUEST if number else Kind.MESSAGE
        self.supervisor.send(encode(message), kind, number)

    def ask(self, message: Message, number: int = 0) -> list[Frame]:
        """Send and do one tick; the answers so far."""
        self.send(message, number)
        return self.tick()

    def tick(self) -> list[Frame]:
        """One tick; returns its answers."""
        self.commands.tick(5.0)
        return self.supervisor.receive()


def answer(message: Message, number: int) -> Frame:
    """An answer as it is received."""
    return Frame(message, Kind.ANSWER, number)


def test_states_and_configurations_are_handed_on() -> None:
    """States alone, or with a configuration; the applied version is in shared memory."""
    work = Work(None)
    config = Config.model_validate(
        {
            "services": [
                {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
            ]
        }
    )
    assert work.ask(SetStates(states={"a": {}}, version=3)) == []
    assert work.heartbeat.applied == 3
    assert work.ask(ApplyConfig(config=config, states={"b": {}}, version=5)) == []
    assert work.heartbeat.applied == 5
    assert work.subject.states == [{"a": {}}, {"b": {}}]
    assert work.subject.configs == [config]


def test_counters_are_acknowledged_when_all_are_new() -> None:
    """Every backend is read after the request, whatever the position of the writer; in slices."""
    work = Work(None, step=SLICE / 4)
    work.writer.tick()
    before = Counter(work.source.asked)
    answers = work.ask(WriteCounters(), 7)
    assert answers == []
    while not answers:
        answers = work.tick()
    assert answers == [answer(Acknowledged(), 7)]
    assert len(work.source.asked) == 10 * ROWS_A_TICK
    assert all(count > before[name] for name, count in work.source.asked.items())


def test_flows_are_listed_once_each() -> None:
    """A flow that a walk yields twice is listed once, one that ended meanwhile is not."""
    work = Work(Flows([1000, None, 2000, 1000, -1, None]))
    found = work.ask(ListFlows(match=FlowMatch(service="web"), limit=10), 1)
    flows = ({"flow": 1000, "at": 5.0}, {"flow": 2000, "at": 5.0})
    assert found == [answer(FlowList(flows=flows, more=False), 1)]
    assert work.subject.view is not None
    assert work.subject.view.matches == [Match(service="web")]


@pytest.mark.parametrize("limit", [2, 3, MOST_LISTED])
def test_a_list_has_a_bound(limit: int) -> None:
    """There is more when one more was found."""
    flows = [number + 1000 for number in range(3 if limit < 4 else MOST_LISTED + 1)]
    work = Work(Flows(list(flows)))
    (frame,) = work.ask(ListFlows(match=EVERY, limit=limit), 1)
    assert isinstance(frame.message, FlowList)
    assert len(frame.message.flows) == limit
    assert frame.message.more is (limit != 3)


def test_services_without_room_are_reported() -> None:
    """As soon as they are known, and when they have changed."""
    work = Work(None)
    sent = []
    for services in (None, (), (), ("web", "dns"), ("web", "dns"), None, ()):
        work.commands.report_unplaced(services)
        sent.append([frame.message for frame in work.supervisor.receive()])
    none = UnplacedServices(services=())
    assert sent == [[], [none], [], [UnplacedServices(services=("web", "dns"))], [], [], [none]]


def test_a_walk_goes_on_at_the_next_tick() -> None:
    """A walk that takes longer than a slice delays nothing else."""
    work = Work(Flows([7] * (3 * _AT_ONCE + 1)), step=SLICE * 0.6)
    assert work.ask(KillFlows(match=EVERY), 9) == []
    assert work.commands.busy
    answers: list[Frame] = []
    ticks = 1
    while not answers:
        answers = work.tick()
        ticks += 1
    assert answers == [answer(KilledFlows(killed=3 * _AT_ONCE + 1), 9)]
    assert ticks > 2
    assert not work.commands.busy


def test_only_those_that_lived_are_counted_as_ended() -> None:
    """A flow that had ended already is not counted."""
    work = Work(Flows([8, None, -1, 9]))
    assert work.ask(KillFlows(match=EVERY), 2) == [answer(KilledFlows(killed=2), 2)]
    assert work.subject.view is not None
    assert work.subject.view.ended == [8, -1, 9]


def test_without_flows_there_is_an_answer() -> None:
    """If the kernel has all flows."""
    work = Work(None)
    empty = FlowList(flows=(), more=False)
    assert work.ask(ListFlows(match=EVERY, limit=5), 1) == [answer(empty, 1)]
    assert work.ask(KillFlows(match=EVERY), 2) == [answer(KilledFlows(killed=0), 2)]


def test_walks_that_wait_are_bounded() -> None:
    """Lists beyond the bound are refused; to end flows is never."""
    work = Work(Flows([7] * 10_000), step=SLICE * 2)
    for number in range(_MOST_WALKS):
        work.send(ListFlows(match=EVERY, limit=MOST_LISTED), number + 1)
    refused = [f for f in work.ask(ListFlows(match=EVERY, limit=1), 99) if f.number == 99]
    assert [type(frame.message) for frame in refused] == [Refusal]
    later = work.ask(KillFlows(match=EVERY), 100)
    assert not any(isinstance(frame.message, Refusal) for frame in later)


def test_policies_are_suspended() -> None:
    """The complete list, each time."""
    work = Work(None)
    work.ask(SuspendPolicies(services=("web", "dns")))
    assert work.subject.suspended == ["web", "dns"]
    work.ask(SuspendPolicies(services=()))
    assert work.subject.suspended == []


def test_the_carrier_is_switched() -> None:
    """Each time, in the order of the messages; a request is acknowledged."""
    work = Work(None)
    assert work.ask(SetCarrier(on=False)) == []
    (answer,) = work.ask(SetCarrier(on=True), 7)
    assert (answer.message, answer.kind, answer.number) == (Acknowledged(), Kind.ANSWER, 7)
    assert work.subject.carried == [False, True]

"""What a process with flows does for the hub: in slices, bounded, and answered once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from paraglider.config.model import Config
from paraglider.daemon.processes.channel import Channel
from paraglider.daemon.processes.counters import ROWS_A_TICK, Counters, Writer
from paraglider.daemon.processes.heartbeat import Life
from paraglider.daemon.workers.commands import _AT_ONCE, _MOST_WALKS, MOST_LISTED, SLICE, Commands
from paraglider.forward.flows import Match
from paraglider.forward.services import States


class Flows:
    """Flows that are numbers; -1 has ended meanwhile."""

    def __init__(self, flows: list[Any]) -> None:
        self.flows = flows
        self.ended: list[Any] = []
        self.matches: list[Match] = []

    def walk(self, match: Match) -> Iterator[Any | None]:
        """See ``commands.View``."""
        self.matches.append(match)
        return iter(self.flows)

    def describe(self, flow: Any, now: float) -> dict[str, Any]:
        """See ``commands.View``."""
        return {} if flow == -1 else {"flow": flow, "at": now}

    def forget(self, flow: Any, now: float) -> bool:
        """See ``commands.View``."""
        self.ended.append(flow)
        return bool(flow != -1)


class Subject:
    """What is told, kept."""

    def __init__(self, view: Flows | None) -> None:
        self.view = view
        self.states: list[States] = []
        self.configs: list[Config] = []
        self.suspended: list[str] = []

    def become(self, config: Config) -> None:
        """See ``commands.Subject``."""
        self.configs.append(config)

    def put(self, states: States) -> None:
        """See ``commands.Subject``."""
        self.states.append(states)

    def suspend(self, services: list[str]) -> None:
        """See ``commands.Subject``."""
        self.suspended = services


class Source:
    """Very many backends; how often each was asked for its numbers."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def figures(self) -> dict[str, int]:
        """See ``counters.Source``."""
        return {}

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """See ``counters.Source``."""
        for number in range(10 * ROWS_A_TICK):
            self.asked[str(number)] += 1
            yield "web", str(number), {"flows": number}


class Work:
    """Commands for ``view``, and the hub's end. ``step`` is how long a slice's part takes."""

    def __init__(self, view: Flows | None, step: float = 0.0) -> None:
        self.hub, theirs = Channel.pair()
        self.subject = Subject(view)
        self._time = 0.0
        self._step = step
        self.source = Source()
        self.writer = Writer(Counters(), self.source)
        self.life = Life()
        self.commands = Commands(theirs, self.subject, self.life, self.writer, self._clock)

    def _clock(self) -> float:
        self._time += self._step
        return self._time

    def ask(self, **message: Any) -> list[dict[str, Any]]:
        """Send a message and do one tick; the answers so far."""
        self.hub.send(message)
        return self.tick()

    def tick(self) -> list[dict[str, Any]]:
        """One tick; what was answered in it."""
        self.commands.tick(5.0)
        return self.hub.receive()


def test_states_and_configurations_are_handed_on() -> None:
    """States alone, or with a configuration; the version that is applied is in shared memory."""
    work = Work(None)
    config = Config.model_validate(
        {
            "services": [
                {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
            ]
        }
    )
    plain = config.model_dump(mode="json", by_alias=True)
    assert work.ask(do="states", states={"a": {}}, version=3) == []
    assert work.life.applied == 3
    assert work.ask(do="config", config=plain, states={"b": {}}, version=5) == []
    assert work.life.applied == 5
    assert work.subject.states == [{"a": {}}, {"b": {}}]
    assert work.subject.configs == [config]


def test_a_report_is_answered_when_all_numbers_are_new() -> None:
    """Every backend is asked after the question, however far the writing had come; in slices."""
    work = Work(None, step=SLICE / 4)
    work.writer.tick()
    before = Counter(work.source.asked)
    answers = work.ask(do="report", id=7)
    assert answers == []
    while not answers:
        answers = work.tick()
    assert answers == [{"re": 7}]
    assert len(work.source.asked) == 10 * ROWS_A_TICK
    assert all(count > before[name] for name, count in work.source.asked.items())


def test_flows_are_listed_once_each() -> None:
    """One that a walk meets twice is listed once, one that ended meanwhile is not."""
    work = Work(Flows([1000, None, 2000, 1000, -1, None]))
    match = {"service": "web"}
    (answer,) = work.ask(do="flows", id=1, limit=10, match=match)
    assert answer == {
        "re": 1,
        "flows": [{"flow": 1000, "at": 5.0}, {"flow": 2000, "at": 5.0}],
        "more": False,
    }
    assert work.subject.view is not None
    assert work.subject.view.matches == [Match.of(match)]


@pytest.mark.parametrize("limit", [2, 3, 10**9])
def test_a_list_has_a_bound(limit: int) -> None:
    """There is more when one more was found; nobody gets more than MOST_LISTED."""
    flows = [number + 1000 for number in range(3 if limit < 4 else MOST_LISTED + 1)]
    work = Work(Flows(list(flows)))
    (answer,) = work.ask(do="flows", id=1, limit=limit, match={})
    assert len(answer["flows"]) == min(limit, MOST_LISTED)
    assert answer["more"] is (limit != 3)


def test_a_walk_goes_on_at_the_next_tick() -> None:
    """One that takes longer than a slice holds nobody up."""
    work = Work(Flows([7] * (3 * _AT_ONCE + 1)), step=SLICE * 0.6)
    assert work.ask(do="kill", id=9, match={}) == []
    assert work.commands.busy
    answers = []
    ticks = 1
    while not answers:
        answers = work.tick()
        ticks += 1
    assert answers == [{"re": 9, "killed": 3 * _AT_ONCE + 1}]
    assert ticks > 2
    assert not work.commands.busy


def test_only_those_that_lived_are_counted_as_ended() -> None:
    """One that has ended already is none that was killed."""
    work = Work(Flows([8, None, -1, 9]))
    assert work.ask(do="kill", id=2, match={}) == [{"re": 2, "killed": 2}]
    assert work.subject.view is not None
    assert work.subject.view.ended == [8, -1, 9]


def test_without_flows_there_is_an_answer() -> None:
    """Where the kernel has them all."""
    work = Work(None)
    assert work.ask(do="flows", id=1, limit=5, match={}) == [{"re": 1, "flows": [], "more": False}]
    assert work.ask(do="kill", id=2, match={}) == [{"re": 2, "killed": 0}]


def test_walks_that_wait_are_bounded() -> None:
    """Lists beyond the bound are refused; to end flows is never."""
    work = Work(Flows([7] * 10_000), step=SLICE * 2)
    for number in range(_MOST_WALKS):
        work.hub.send({"do": "flows", "id": number, "limit": 10**6, "match": {}})
    answers = work.ask(do="flows", id=99, limit=1, match={})
    assert {"re": 99, "error": "too many questions at a time"} in answers
    assert not any("error" in answer for answer in work.ask(do="kill", id=100, match={}))


def test_policies_are_suspended() -> None:
    """All that are, each time."""
    work = Work(None)
    work.ask(do="suspend", services=["web", "dns"])
    assert work.subject.suspended == ["web", "dns"]
    work.ask(do="suspend", services=[])
    assert work.subject.suspended == []

"""A mass failure, counted in messages: every backend is known to be down, and no consumer of the
store has more than one state that it has not applied.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from paraglider.config.diagnostics import Marks
from paraglider.config.load import LoadedConfig
from paraglider.config.model import Config
from paraglider.core.pool import Event, State
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.controller.controller import Controller
from paraglider.daemon.inputs.config_watcher import ConfigWatcher
from paraglider.daemon.monitor.checker import CheckerSpec
from paraglider.daemon.processes.channel import Channel, Message
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.counters import Counters
from paraglider.daemon.processes.manager import Children
from paraglider.daemon.settings import Read
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.health.codes import Code
from paraglider.health.messages import MOST_NEWS, News, Report, Verdict, batch

WORKERS = 3
#: bytes that one backend's state takes in a message, with room
A_STATE = 64


def config(services: int, backends: int) -> Config:
    """So many checked services with so many backends each."""
    common = {"protocol": "tcp", "check": {"type": "tcp", "interval": 1, "fall": 1}}
    return Config.model_validate(
        {
            "services": [
                {
                    "name": f"s{n}",
                    "vip": f"192.0.{2 + n // 250}.{1 + n % 250}/16",
                    "ports": 80,
                    "backends": [
                        f"10.{n // 250}.{n % 250}.{1 + b}"
                        if services > 1
                        else f"10.0.{b // 250}.{1 + b % 250}"
                        for b in range(backends)
                    ],
                    **common,
                }
                for n in range(services)
            ]
        }
    )


class Processes:
    """Workers and a monitor that serve; what each was sent and has not applied."""

    def __init__(self, of: Config) -> None:
        self.workers = [
            Child(
                WorkerSpec(index, index, of, 1, 1, counters=Counters()),
                pid=1,
                channel=Channel.pair()[0],
            )
            for index in range(WORKERS)
        ]
        self.monitor = Child(
            CheckerSpec(WORKERS, None, 1, 1, "/"), pid=1, starts=1, channel=Channel.pair()[0]
        )
        self.unread: dict[int, list[Message]] = {index: [] for index in range(WORKERS)}
        self.states: dict[int, dict[str, dict[str, Any]]] = {i: {} for i in range(WORKERS)}
        self.sent: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.longest_queue = 0

    def __iter__(self) -> Iterator[Child]:
        return iter([*self.workers, self.monitor])

    def send(self, child: Child, message: Message) -> None:
        """See ``Children``."""
        self.sent[message["do"]] += 1
        self.bytes[message["do"]] += len(json.dumps(message))
        if child is not self.monitor:
            waiting = self.unread[child.spec.index]
            waiting.append(message)
            self.longest_queue = max(self.longest_queue, len(waiting))

    def apply(self) -> None:
        """Every worker applies what it was sent."""
        for child in self.workers:
            for message in self.unread[child.spec.index]:
                for service, states in message["states"].items():
                    self.states[child.spec.index].setdefault(service, {}).update(states)
                child.spec.life.applied = message["version"]
            self.unread[child.spec.index].clear()


class World:
    """A controller with stand-ins for its processes."""

    def __init__(self, of: Config, directory: Path) -> None:
        path = directory / "file"
        path.touch()
        self.config = of
        self.files = [of]
        self.controller = Controller(
            of,
            STRATEGIES,
            read=lambda: Read(
                LoadedConfig(self.files[-1], Marks(), "file"), self.files[-1], (), {}
            ),
            file=ConfigWatcher(path),
            adjust=lambda _config, _again: [],
        )
        self.processes = Processes(of)
        self.controller.attach(cast(Children, self.processes))
        self.turn()
        assert self.processes.sent == {"targets": 1}  # the monitor has just started
        self.processes.sent.clear()

    def turn(self) -> None:
        """One turn of the daemon's loop."""
        self.controller.look(time.monotonic())

    def report(self, event: Event, *, every: int = 4) -> int:
        """The monitor finds that every backend went down, or is back; the workers apply states
        after each ``every`` messages only. The messages that the monitor sent.
        """
        passed, now = event is Event.CHECK_PASSED, time.monotonic()
        keys = [(s.name, b.name) for s in self.config.services for b in s.backends]
        news: list[News] = []
        for key in keys:
            news += [
                Report(*key, passed, Code.L4OK, "x", 0.001, now),
                Verdict(*key, event, "x", now),
            ]
        messages = [batch(news[at : at + MOST_NEWS]) for at in range(0, len(news), MOST_NEWS)]
        for number, message in enumerate(messages, 1):
            self.controller.heard(self.processes.monitor, message)
            self.turn()
            if number % every == 0:
                self.processes.apply()
        return len(messages)

    def settle(self) -> None:
        """Turns until the workers have applied all there is."""
        for _ in range(3):
            self.processes.apply()
            self.turn()

    def states(self) -> Counter[State]:
        """How many backends are in each state."""
        return Counter(record.state for record in self.controller.pools)


@pytest.mark.parametrize(("services", "backends"), [(1, 2000), (500, 4)])
def test_all_fail_at_once_and_return(tmp_path: Path, services: int, backends: int) -> None:
    """Every worker knows all of it, by differences that together are about one table; the monitor
    is not sent its own results, and no worker ever has two states to apply.
    """
    world = World(config(services, backends), tmp_path)
    count, processes = services * backends, world.processes
    for event, state in ((Event.CHECK_FAILED, State.DOWN), (Event.CHECK_PASSED, State.READY)):
        processes.sent.clear()
        processes.bytes.clear()
        messages = world.report(event)
        world.settle()
        assert world.states() == {state: count}
        for states in processes.states.values():
            assert sum(len(rows) for rows in states.values()) == count
            assert {row[0] for rows in states.values() for row in rows.values()} == {state.value}
        assert set(processes.sent) == {"states"}
        assert processes.sent["states"] <= WORKERS * (messages // 4 + 3)
        assert processes.bytes["states"] <= WORKERS * count * A_STATE
    assert processes.longest_queue == 1


def test_a_worker_that_is_slow_gets_the_newest_state(tmp_path: Path) -> None:
    """However much changes meanwhile; the others do not wait for it."""
    world = World(config(1, 10), tmp_path)
    controller, processes = world.controller, world.processes
    records = list(controller.pools)
    slow = processes.workers[0].spec.index
    for turn in range(20):
        controller.weigh(records[turn % 10], 100 + turn)
        world.turn()
        held = processes.unread[slow]
        processes.unread[slow] = []
        processes.apply()
        processes.unread[slow] = held
        assert len(held) == 1
    assert processes.states[1]["s0"][records[9].backend] == ("ready", 119)
    processes.apply()
    world.turn()
    processes.apply()
    assert processes.states[slow] == processes.states[1]


def test_messages_of_one_change(tmp_path: Path) -> None:
    """``set`` costs the request, one message a worker, and the reply, when they have applied it."""
    world = World(config(1, 10), tmp_path)
    replies: list[Message] = []
    request = {"do": "set", "service": "s0", "backend": "10.0.0.3", "weight": 5, "state": "drain"}
    world.controller.desk.take(request, replies.append)
    world.turn()
    assert world.processes.sent == {"states": WORKERS}
    assert replies == []
    world.settle()
    assert world.processes.sent == {"states": WORKERS}
    assert [reply["ok"]["weight"] for reply in replies] == [5]


def test_a_change_that_is_none(tmp_path: Path) -> None:
    """A source that says the same twice costs nothing."""
    world = World(config(1, 10), tmp_path)
    record = next(iter(world.controller.pools))
    for _ in range(2):
        world.controller.move(record, Event.CHECK_FAILED, "refused")
        world.controller.weigh(record, 7)
        world.settle()
    assert world.processes.sent == {"states": WORKERS}


def test_a_reload_is_one_message_a_worker(tmp_path: Path) -> None:
    """With 500 services of 4 backends, whatever else changes before the workers have it."""
    world = World(config(500, 4), tmp_path)
    first, *others = world.config.services
    world.files.append(
        world.config.model_copy(
            update={"services": (first.model_copy(update={"strategy": "wrr"}), *others)}
        )
    )
    replies: list[Message] = []
    world.controller.desk.take({"do": "reload"}, replies.append)
    world.turn()
    assert world.processes.sent == {"config": WORKERS}
    assert replies == []
    world.settle()
    assert world.processes.sent == {"config": WORKERS}
    assert replies[0]["ok"]["changed"] == ["service s0: strategy rr → wrr"]

"""The workers reach the store's state by one message at a time.

The tests count messages: a mass failure, one change, a reload; and who is waited for.
"""

from __future__ import annotations

import time
from collections import Counter
from math import inf
from pathlib import Path
from typing import Any, cast

import pytest
from stand_ins import RecordedProcesses, in_steps, supervisors_end

from paraglider.config.diagnostics import Marks
from paraglider.config.load import LoadedConfig
from paraglider.config.model import Config
from paraglider.core.pool import Event, State
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.controller.controller import Controller
from paraglider.daemon.ipc import Frame
from paraglider.daemon.messages import (
    ApplyConfig,
    HealthNews,
    Message,
    ReloadRequest,
    Result,
    SetRequest,
    SetStates,
)
from paraglider.daemon.monitor.outbox import MOST
from paraglider.daemon.monitor.process import MonitorSpec
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.reconcile.workers import POLL, WorkerReconciler
from paraglider.daemon.settings import Read
from paraglider.daemon.shared_memory.counters import Counters
from paraglider.daemon.store.store import Desired, Store
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.health.codes import Code
from paraglider.health.results import CheckReport, HealthChange
from paraglider.host.file_watch import FilePoller

WORKERS = 3
#: bytes that one backend's state takes in a message, with room
A_STATE = 64


def config(services: int, backends: int) -> Config:
    """``services`` checked services of ``backends`` backends each."""
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


class Processes(RecordedProcesses):
    """Running workers and a monitor; the messages that each has not applied yet."""

    def __init__(self, of: Config) -> None:
        self.workers = [
            Child(
                WorkerSpec(index, index, of, 1, 1, counters=Counters()),
                pid=1,
                endpoint=supervisors_end("worker"),
            )
            for index in range(WORKERS)
        ]
        spec = MonitorSpec(WORKERS, None, 1, 1, "/")
        self.monitor = Child(spec, pid=1, starts=1, endpoint=supervisors_end("monitor"))
        super().__init__(*self.workers, self.monitor)
        self.unread: dict[int, list[Message]] = {index: [] for index in range(WORKERS)}
        self.states: dict[int, dict[str, dict[str, Any]]] = {i: {} for i in range(WORKERS)}
        self.sent: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.longest_queue = 0

    def received(self, child: Child, message: Message, body: bytes, number: int) -> None:
        """Count it, and queue it for a worker."""
        name = type(message).__name__
        self.sent[name] += 1
        self.bytes[name] += len(body)
        if child is not self.monitor:
            waiting = self.unread[child.spec.index]
            waiting.append(message)
            self.longest_queue = max(self.longest_queue, len(waiting))

    def apply(self) -> None:
        """Every worker applies its messages."""
        for child in self.workers:
            for message in self.unread[child.spec.index]:
                assert isinstance(message, SetStates | ApplyConfig)
                for service, states in message.states.items():
                    self.states[child.spec.index].setdefault(service, {}).update(states)
                child.spec.heartbeat.applied = message.version
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
            read=in_steps(
                lambda: Read(LoadedConfig(self.files[-1], Marks(), "file"), self.files[-1], (), {})
            ),
            file=FilePoller([path]),
            adjust=lambda _config, _again: [],
        )
        self.processes = Processes(of)
        self.controller.attach(cast(ProcessManager, self.processes))
        self.turn()
        assert self.processes.sent == {"SetTargets": 1}  # the monitor has just started
        self.processes.sent.clear()

    def turn(self) -> None:
        """One turn of the daemon's loop."""
        self.controller.turn(time.monotonic())

    def report(self, event: Event, *, every: int = 4) -> int:
        """The monitor finds that every backend went down, or is back; the workers apply states
        after each ``every`` messages only. The messages that the monitor sent.
        """
        passed, now = event is Event.CHECK_PASSED, time.monotonic()
        assert event is Event.CHECK_PASSED or event is Event.CHECK_FAILED
        keys = [(s.name, b.name) for s in self.config.services for b in s.backends]
        messages = []
        for at in range(0, len(keys), MOST // 2):
            some = keys[at : at + MOST // 2]
            reports = tuple(CheckReport(*key, passed, Code.L4OK, "x", 0.001, now) for key in some)
            changes = tuple(HealthChange(*key, event, "x", now) for key in some)
            messages.append(HealthNews(reports=reports, changes=changes))
        for number, message in enumerate(messages, 1):
            self.controller.on_message(self.processes.monitor, Frame(message))
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
        return Counter(record.state for record in self.controller.store.pools)


@pytest.mark.parametrize(("services", "backends"), [(1, 2000), (500, 4)])
def test_all_fail_at_once_and_return(tmp_path: Path, services: int, backends: int) -> None:
    """Every worker gets all changes, as differences of about one table in total; the monitor does
    not get its own results, and no worker has more than one message to apply.
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
        assert set(processes.sent) == {"SetStates"}
        assert processes.sent["SetStates"] <= WORKERS * (messages // 4 + 3)
        assert processes.bytes["SetStates"] <= WORKERS * count * A_STATE
    assert processes.longest_queue == 1


def test_a_worker_that_is_slow_gets_the_newest_state(tmp_path: Path) -> None:
    """For any number of changes meanwhile; the others do not wait for it."""
    world = World(config(1, 10), tmp_path)
    controller, processes = world.controller, world.processes
    records = list(controller.store.pools)
    slow = processes.workers[0].spec.index
    for turn in range(20):
        controller.store.set_weight(records[turn % 10], 100 + turn)
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
    what = {"service": "s0", "backend": "10.0.0.3", "weight": 5, "state": "drain"}
    request = SetRequest.model_validate({"listener": "control", **what})
    world.controller.handlers.handle(request, replies.append)
    world.turn()
    assert world.processes.sent == {"SetStates": WORKERS}
    assert replies == []
    world.settle()
    assert world.processes.sent == {"SetStates": WORKERS}
    assert [reply.value["weight"] for reply in replies if isinstance(reply, Result)] == [5]


def test_a_change_that_is_none(tmp_path: Path) -> None:
    """A repeated report sends no message."""
    world = World(config(1, 10), tmp_path)
    record = next(iter(world.controller.store.pools))
    for _ in range(2):
        world.controller.store.move(record, Event.CHECK_FAILED, "refused", time.monotonic())
        world.controller.store.set_weight(record, 7)
        world.settle()
    assert world.processes.sent == {"SetStates": WORKERS}


def test_a_reload_is_one_message_a_worker(tmp_path: Path) -> None:
    """With 500 services of 4 backends, and any other changes before the workers have applied it."""
    world = World(config(500, 4), tmp_path)
    first, *others = world.config.services
    world.files.append(
        world.config.model_copy(
            update={"services": (first.model_copy(update={"strategy": "wrr"}), *others)}
        )
    )
    replies: list[Message] = []
    world.controller.handlers.handle(ReloadRequest(listener="control"), replies.append)
    for _ in range(5):  # the file is read and compared in several
        world.turn()
    assert world.processes.sent == {"ApplyConfig": WORKERS}
    assert replies == []
    world.settle()
    assert world.processes.sent == {"ApplyConfig": WORKERS}
    assert isinstance(replies[0], Result)
    assert replies[0].value["changed"] == ["service s0: strategy rr → wrr"]


class Alone:
    """A reconciler with a store of ten backends and the workers of ``Processes``."""

    def __init__(self) -> None:
        self.store = Store(config(1, 10), 1.0)
        self.processes = Processes(self.store.config)
        by_number = {child.spec.index: child for child in self.processes}
        self.reconciler = WorkerReconciler(
            self.store,
            lambda: self.processes,
            lambda index, message: self.processes.send(by_number[index], message),
        )
        self.ends: list[str] = []

    def change(self) -> None:
        """The weight of a backend changes."""
        self.store.set_weight(next(iter(self.store.pools)), 100 + self.store.version)

    def wait(self, name: str, deadline: float) -> None:
        """Append ``name`` to ``ends`` when all is applied, or at ``deadline``."""
        self.reconciler.when_applied(lambda: self.ends.append(name), deadline)


def test_waiters_are_called_when_all_have_applied_or_in_time() -> None:
    """Once; until then the next turn is soon."""
    alone = Alone()
    assert alone.reconciler.reconcile(10.0) == inf
    alone.change()
    alone.wait("short", 12.0)
    alone.wait("long", 99.0)
    assert alone.reconciler.reconcile(10.0) == POLL
    alone.reconciler.reconcile(11.9)
    assert alone.ends == []
    alone.reconciler.reconcile(12.0)
    assert alone.ends == ["short"]
    alone.processes.apply()
    assert alone.reconciler.reconcile(13.0) == inf
    assert alone.ends == ["short", "long"]


def test_a_dead_worker_is_not_waited_for() -> None:
    """Nor is one that hangs."""
    alone = Alone()
    dead, hanging, alive = alone.processes.workers
    dead.pid, dead.endpoint, hanging.hung = 0, None, True
    alone.change()
    alone.wait("all", 99.0)
    alone.reconciler.reconcile(10.0)
    assert alone.ends == []
    alive.spec.heartbeat.applied = alone.store.version
    alone.reconciler.reconcile(10.0)
    assert alone.ends == ["all"]


def test_a_starting_worker_is_waited_for_if_it_has_inherited_an_older_state() -> None:
    """Else its first connections would follow the old one after the answer to a change."""
    alone = Alone()
    first, *others = alone.processes.workers
    alone.reconciler.reconcile(10.0)
    first.report = 5
    alone.change()
    alone.wait("all", 99.0)
    alone.reconciler.reconcile(10.0)
    for child in others:
        child.spec.heartbeat.applied = alone.store.version
    alone.reconciler.reconcile(10.0)
    assert alone.ends == []
    alone.processes.apply()
    alone.reconciler.reconcile(10.0)
    assert alone.ends == ["all"]
    first.starts += 1  # and its successor has inherited the newest
    alone.wait("next", 99.0)
    alone.reconciler.reconcile(10.0)
    assert alone.ends == ["all", "next"]


def test_a_worker_that_was_started_again_is_sent_what_came_after() -> None:
    """Its inherited state is not sent, whatever its predecessor had."""
    alone = Alone()
    alone.reconciler.reconcile(10.0)
    for child in alone.processes.workers:
        child.starts += 1
    assert alone.reconciler.reconcile(10.0) == inf
    assert alone.processes.sent == {}
    alone.change()
    alone.reconciler.reconcile(10.0)
    assert alone.processes.sent == {"SetStates": WORKERS}


@pytest.mark.parametrize("superseded", [False, True])
def test_a_replaced_worker_gets_no_configuration(superseded: bool) -> None:
    """A worker that ends has no use for it; the states of its backends it gets to its end."""
    alone = Alone()
    alone.reconciler.reconcile(10.0)
    alone.store.apply(Desired(config(1, 9)), 2.0)
    if superseded:
        alone.reconciler.supersede({"worker"})
    alone.change()
    alone.reconciler.reconcile(10.0)
    assert alone.processes.sent == {"SetStates" if superseded else "ApplyConfig": WORKERS}

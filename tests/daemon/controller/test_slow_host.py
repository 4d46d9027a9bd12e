"""A host helper that does not answer: nothing waits for it, and nothing is lost.

Running programs or dumps in the supervisor is forbidden here.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from stand_ins import RecordedProcesses, in_steps, supervisors_end

from paraglider.config.diagnostics import Marks
from paraglider.config.load import LoadedConfig
from paraglider.config.model import Config
from paraglider.core.pool import Event
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon import log
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.conditions.refusals import Refusals
from paraglider.daemon.controller.controller import Controller
from paraglider.daemon.host_helper.process import HostHelperSpec
from paraglider.daemon.ipc import Frame, Kind
from paraglider.daemon.messages import (
    Acknowledged,
    ApplyHost,
    ConnectionCounts,
    CountConnections,
    HostChanged,
    LoadRules,
    Message,
    Reading,
    ReadTables,
    ReloadRequest,
    Result,
    SetRequest,
    ShowRequest,
    View,
    WriteCounters,
)
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.settings import Read
from paraglider.daemon.shared_memory.counters import Counters
from paraglider.daemon.stats.kernel_readings import TIMEOUT, KernelReadings
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.forward.offload.counters import KernelCounters
from paraglider.forward.offload.table_monitor import TableMonitor
from paraglider.host.file_watch import FilePoller
from paraglider.netfilter import nfnetlink, nft
from paraglider.netfilter.rules.marks import backend_marks

BACKENDS = ["10.0.0.1", "10.0.0.2"]


def show(view: Any) -> ShowRequest:
    """A request of the control socket."""
    return ShowRequest(listener="control", view=view)


def value(replies: list[Message]) -> Any:
    """The value of the only reply."""
    (reply,) = replies
    assert isinstance(reply, Result)
    return reply.value


def config(**changes: Any) -> Config:
    """One offloaded service."""
    service = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "forward": "offload"}
    return Config.model_validate({"services": [{**service, "backends": BACKENDS, **changes}]})


class Processes(RecordedProcesses):
    """A worker that applies all it is sent, and a host helper that does not answer."""

    def __init__(self, of: Config) -> None:
        spec = WorkerSpec(0, 0, of, 1, 1, counters=Counters())
        self.worker = Child(spec, pid=1, endpoint=supervisors_end("worker"))
        self.helper = Child(HostHelperSpec(1, of, frozenset({4})), pid=1)
        super().__init__(self.worker, self.helper)
        self.orders: list[tuple[Message, int]] = []
        self.requests: list[tuple[Message, int]] = []  # to the worker

    def received(self, child: Child, message: Message, body: bytes, number: int) -> None:
        """Record it; the worker applies its states."""
        if child is self.helper:
            self.orders.append((message, number))
        else:
            self.requests.append((message, number))
            child.spec.heartbeat.applied = getattr(message, "version", child.spec.heartbeat.applied)

    def restart(self, child: Child) -> None:
        """See ``ProcessManager``."""


class World:
    """A controller; ``now`` is the time of its readings."""

    def __init__(self, directory: Path) -> None:
        self.now = 100.0
        self.config = config()
        path = directory / "file"
        path.touch()
        readings = KernelReadings(clock=lambda: self.now)
        self.file = self.config
        self.controller = Controller(
            self.config,
            STRATEGIES,
            read=in_steps(
                lambda: Read(LoadedConfig(self.file, Marks(), "file"), self.file, (), {})
            ),
            file=FilePoller([path]),
            kernel=KernelMonitor(
                TableMonitor({4}, log.logger(), counters=readings.tables, full=readings.fill),
                KernelCounters(self.config, readings.carried),
                Refusals(self.config, readings.refused),
                readings,
            ),
        )
        self.processes = Processes(self.config)
        self.controller.attach(cast(ProcessManager, self.processes))

    def turn(self) -> None:
        """Some turns of the daemon's loop: a file is read and compared in several."""
        for _ in range(5):
            self.controller.turn(time.monotonic())

    def ask(self, request: Message) -> list[Message]:
        """The replies to a request of the control socket, after some turns."""
        replies: list[Message] = []
        self.controller.handlers.handle(request, replies.append)
        self.turn()
        self.now += TIMEOUT
        self.turn()
        return replies

    def answer(self, kind: type[Message], answer: Message) -> None:
        """The helper answers the oldest request of that kind."""
        order = next(order for order in self.processes.orders if isinstance(order[0], kind))
        self.processes.orders.remove(order)
        frame = Frame(answer, Kind.ANSWER, order[1])
        self.controller.on_message(self.processes.helper, frame)
        self.turn()

    def kinds(self) -> list[type[Message]]:
        """The requests that wait for an answer."""
        return [type(message) for message, _ in self.processes.orders]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A running daemon; from here on no program may run, and no table be read."""
    made = World(tmp_path)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("the supervisor waits")

    for where, name in ((subprocess, "run"), (subprocess, "Popen"), (nft, "attempt")):
        monkeypatch.setattr(where, name, forbidden)
    monkeypatch.setattr(nfnetlink, "send_request", forbidden)
    monkeypatch.setattr("paraglider.netfilter.connections.dump", forbidden)
    made.turn()
    return made


def test_everything_else_goes_on(world: World) -> None:
    """While the hash is loaded and the tables are read, all requests are answered, and changes
    reach the workers.
    """
    assert set(world.kinds()) == {LoadRules, ReadTables}
    for view in get_args(View):
        value(world.ask(show(view)))
    change = {"service": "web", "backend": BACKENDS[0], "state": "drain", "weight": 7}
    request = SetRequest.model_validate({"listener": "control", **change})
    assert value(world.ask(request))["state"] == "drain"
    assert world.processes.worker.spec.heartbeat.applied == world.controller.store.pools.version
    health = value(world.ask(show("status")))["health"]
    assert not [c for c in health["conditions"] if c["source"] == "supervisor"]
    assert sorted(kind.__name__ for kind in world.kinds()) == ["LoadRules", "ReadTables"]


def test_what_changed_meanwhile_is_applied_later(world: World) -> None:
    """As one load of the newest state, when nft has ended at last."""
    record = world.controller.store.pools.find("web", BACKENDS[0])
    for weight in (5, 6, 7):
        world.controller.store.set_weight(record, weight)
        world.turn()
    assert world.kinds().count(LoadRules) == 1
    world.answer(LoadRules, Acknowledged())
    assert world.kinds().count(LoadRules) == 1
    world.answer(LoadRules, Acknowledged())
    assert world.kinds().count(LoadRules) == 0


def test_a_reload_waits_and_nothing_else_does(world: World) -> None:
    """It is answered when the host has been changed; health and a change in between at once."""
    world.file = config(strategy="wrr")
    replies: list[Message] = []
    world.controller.handlers.handle(ReloadRequest(listener="control"), replies.append)
    world.turn()
    assert ApplyHost in world.kinds()
    value(world.ask(show("health")))
    record = world.controller.store.pools.find("web", BACKENDS[1])
    world.controller.store.move(record, Event.CHECK_FAILED, "refused", time.monotonic())
    world.turn()
    assert world.processes.worker.spec.heartbeat.applied == world.controller.store.pools.version
    assert replies == []
    world.answer(ApplyHost, HostChanged(done=()))
    assert value(replies)["changed"] == ["service web: strategy rr → wrr"]


def test_flows_that_a_reload_would_end_are_counted_by_the_helper(world: World) -> None:
    """The reload waits for the count, and is refused by it."""
    world.file = config(forward="nat")
    replies: list[Message] = []
    world.controller.handlers.handle(ReloadRequest(listener="control"), replies.append)
    world.turn()
    (number,) = (n for m, n in world.processes.requests if isinstance(m, WriteCounters))
    frame = Frame(Acknowledged(), Kind.ANSWER, number)
    world.controller.on_message(world.processes.worker, frame)
    world.turn()
    assert replies == []
    (mark, _) = backend_marks(world.config)["web"]
    world.answer(CountConnections, ConnectionCounts(marks={mark: 3}))
    assert "3 flows" in str(value(replies))


def test_what_was_read_is_shown(world: World) -> None:
    """The answer has the helper's newest reading."""
    marks = backend_marks(world.config)["web"]
    counts = {4: {marks[0]: {"requests": nfnetlink.CounterValue(3, 300)}}}
    replies: list[Message] = []
    world.controller.handlers.handle(show("backends"), replies.append)
    world.turn()
    assert replies == []
    reading = Reading(tables={4: {"unanswered": 0, "gone": 0}}, carried=counts)
    world.answer(ReadTables, reading)
    assert [row["packets_in"] for row in value(replies)] == [3, 0]

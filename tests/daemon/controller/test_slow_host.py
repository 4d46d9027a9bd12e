"""A host helper that does not answer: nobody waits for it, and nothing is lost.

Whatever the supervisor would run or dump itself is forbidden here.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from paraglider.config.diagnostics import Marks
from paraglider.config.load import LoadedConfig
from paraglider.config.model import Config
from paraglider.core.pool import Event
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon import log
from paraglider.daemon.conditions.kernel import KernelMonitor
from paraglider.daemon.conditions.refusals import Refusals
from paraglider.daemon.controller.controller import Controller
from paraglider.daemon.host_helper.process import ReconcilerSpec
from paraglider.daemon.host_helper.readings import Reading
from paraglider.daemon.inputs.config_watcher import ConfigWatcher
from paraglider.daemon.processes.channel import Channel, Message
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.counters import Counters
from paraglider.daemon.processes.manager import Children
from paraglider.daemon.settings import Read
from paraglider.daemon.stats.kernel_counters import KernelCounters
from paraglider.daemon.stats.kernel_readings import PATIENCE, KernelReadings
from paraglider.daemon.stats.table_monitor import TableMonitor
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.netfilter import nfnetlink, nft
from paraglider.netfilter.rules.marks import backend_marks

BACKENDS = ["10.0.0.1", "10.0.0.2"]


def config(**changes: Any) -> Config:
    """One offloaded service."""
    service = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "forward": "offload"}
    return Config.model_validate({"services": [{**service, "backends": BACKENDS, **changes}]})


class Processes:
    """A worker that applies all it is sent, and a host helper that does not answer."""

    def __init__(self, of: Config) -> None:
        spec = WorkerSpec(0, 0, of, 1, 1, counters=Counters())
        self.worker = Child(spec, pid=1, channel=Channel.pair()[0])
        self.helper = Child(ReconcilerSpec(1, of, frozenset({4})), pid=1)
        self.orders: list[Message] = []
        self.requests: list[Message] = []  # to the worker

    def __iter__(self) -> Iterator[Child]:
        return iter([self.worker, self.helper])

    def send(self, child: Child, message: Message) -> None:
        """See ``Children``."""
        if child is self.helper:
            self.orders.append(message)
        else:
            self.requests.append(message)
            child.spec.life.applied = message.get("version", child.spec.life.applied)

    def dismiss(self, child: Child) -> None:
        """See ``Children``."""


class World:
    """A controller; ``now`` is what its readings go by."""

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
            read=lambda: Read(LoadedConfig(self.file, Marks(), "file"), self.file, (), {}),
            file=ConfigWatcher(path),
            kernel=KernelMonitor(
                TableMonitor({4}, log.logger(), counters=readings.tables, full=readings.fill),
                KernelCounters(self.config, readings.carried),
                Refusals(self.config, readings.refused),
                readings,
            ),
        )
        self.processes = Processes(self.config)
        self.controller.attach(cast(Children, self.processes))

    def turn(self) -> None:
        """Two turns of the daemon's loop."""
        for _ in range(2):
            self.controller.look(time.monotonic())

    def ask(self, **request: Any) -> list[Message]:
        """The replies to a request of the control socket, after some turns."""
        replies: list[Message] = []
        self.controller.desk.take(request, replies.append)
        self.turn()
        self.now += PATIENCE
        self.turn()
        return replies

    def answer(self, kind: str, **answer: Any) -> None:
        """The helper answers the oldest order of that kind."""
        order = next(order for order in self.processes.orders if order["do"] == kind)
        self.processes.orders.remove(order)
        self.controller.heard(self.processes.helper, {"re": order["id"], **answer})
        self.turn()

    def kinds(self) -> list[str]:
        """The orders that wait for an answer."""
        return [order["do"] for order in self.processes.orders]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A daemon at work; from here on nothing may be run, and no table be walked."""
    made = World(tmp_path)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("the supervisor waits")

    for where, name in ((subprocess, "run"), (subprocess, "Popen"), (nft, "attempt")):
        monkeypatch.setattr(where, name, forbidden)
    monkeypatch.setattr(nfnetlink, "ask", forbidden)
    monkeypatch.setattr("paraglider.netfilter.connections.dump", forbidden)
    made.turn()
    return made


def test_everything_else_goes_on(world: World) -> None:
    """The hash is being loaded, the tables are being read; meanwhile all requests are answered, and
    what changes reaches the workers.
    """
    assert sorted(world.kinds()) == ["hash", "read"]
    for request in ({"do": "status"}, {"do": "backends"}, {"do": "services"}, {"do": "health"}):
        (reply,) = world.ask(**request)
        assert "ok" in reply
    (reply,) = world.ask(do="set", service="web", backend=BACKENDS[0], state="drain", weight=7)
    assert reply["ok"]["state"] == "drain"
    assert world.processes.worker.spec.life.applied == world.controller.pools.version
    (reply,) = world.ask(do="status")
    assert not [c for c in reply["ok"]["health"]["conditions"] if c["source"] == "supervisor"]
    assert sorted(world.kinds()) == ["hash", "read"]


def test_what_changed_meanwhile_is_applied_later(world: World) -> None:
    """As one load of the newest state, when nft has ended at last."""
    record = world.controller.pools.find("web", BACKENDS[0])
    for weight in (5, 6, 7):
        world.controller.weigh(record, weight)
        world.turn()
    assert world.kinds().count("hash") == 1
    world.answer("hash")
    assert world.kinds().count("hash") == 1
    world.answer("hash")
    assert world.kinds().count("hash") == 0


def test_a_reload_waits_and_nothing_else_does(world: World) -> None:
    """It is answered when the host has been changed; health and a change in between at once."""
    world.file = config(strategy="wrr")
    replies: list[Message] = []
    world.controller.desk.take({"do": "reload"}, replies.append)
    world.turn()
    assert "adjust" in world.kinds()
    assert "ok" in world.ask(do="health")[0]
    world.controller.move(
        world.controller.pools.find("web", BACKENDS[1]), Event.CHECK_FAILED, "refused"
    )
    world.turn()
    assert world.processes.worker.spec.life.applied == world.controller.pools.version
    assert replies == []
    world.answer("adjust", done=[])
    assert replies[0]["ok"]["changed"] == ["service web: strategy rr → wrr"]


def test_flows_that_a_reload_would_end_are_counted_by_the_helper(world: World) -> None:
    """The reload waits for the count, and is refused by what was counted."""
    world.file = config(forward="nat")
    replies: list[Message] = []
    world.controller.desk.take({"do": "reload"}, replies.append)
    world.turn()
    (report,) = (each for each in world.processes.requests if each["do"] == "report")
    world.controller.heard(world.processes.worker, {"re": report["id"]})
    world.turn()
    assert replies == []
    (mark, _) = backend_marks(world.config)["web"]
    world.answer("count", marks={str(mark): 3})
    assert "3 flows" in str(replies[0])


def test_what_was_read_is_shown(world: World) -> None:
    """Who asks gets what the helper has read just now."""
    marks = backend_marks(world.config)["web"]
    counts = {4: {marks[0]: {"requests": nfnetlink.CounterValue(3, 300)}}}
    replies: list[Message] = []
    world.controller.desk.take({"do": "backends"}, replies.append)
    world.turn()
    assert replies == []
    reading = Reading({4: {"unanswered": 0, "gone": 0}}, counts, {})
    world.answer("read", reading=reading.plain())
    assert [row["packets_in"] for row in replies[0]["ok"]] == [3, 0]

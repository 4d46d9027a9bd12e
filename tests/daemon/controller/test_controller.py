"""The controller: another configuration reaches all who go by it, or nobody."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import structlog

from paraglider.config.diagnostics import ConfigError, Marks
from paraglider.config.load import LoadedConfig
from paraglider.config.model import Config
from paraglider.core.pool import Event, State
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.controller.controller import Controller
from paraglider.daemon.ipc import Frame, IpcEndpoint, Kind
from paraglider.daemon.messages import (
    FROM_ROLE,
    TO_ROLE,
    ApplyConfig,
    DnsName,
    DnsUpdate,
    FlowList,
    Message,
    Refusal,
    ReloadRequest,
    Result,
    SetSources,
    SetStates,
    ShowRequest,
    SuspendPolicies,
    View,
)
from paraglider.daemon.monitor.process import MonitorSpec
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.reconcile.draining import PAUSE
from paraglider.daemon.settings import Read
from paraglider.daemon.shared_memory.counters import Counters, CounterWriter, identity
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.errors import OperatorError, PlatformError
from paraglider.forward.worker_datapath import build
from paraglider.host.dns_records import Record
from paraglider.host.file_watch import PAUSE as LOOK
from paraglider.host.file_watch import FilePoller

SERVICE = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "ports": 80}


def config(*backends: Any, **service: Any) -> Config:
    """A configuration of one service."""
    return Config.model_validate({"services": [{**SERVICE, "backends": list(backends), **service}]})


class Counted:
    """What a worker counts: flows by backend."""

    def __init__(self, flows: dict[str, int]) -> None:
        self._flows = flows

    def figures(self) -> dict[str, int]:
        """See ``counters.Source``."""
        return {}

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """See ``counters.Source``."""
        for backend, flows in self._flows.items():
            yield "web", backend, {"flows": flows}


def pair(role: str) -> IpcEndpoint:
    """The supervisor's end of an endpoint; the other one stays open."""
    ours, theirs = IpcEndpoint.pair(FROM_ROLE[role], TO_ROLE[role])
    OPEN.append(theirs)
    return ours


#: ends of processes that are none
OPEN: list[IpcEndpoint] = []


class Everybody:
    """The processes: one worker that serves, and what it was sent."""

    def __init__(self, before: Config) -> None:
        spec = WorkerSpec(0, 0, before, 1, 1, counters=Counters())
        self.worker = Child(spec, pid=1, endpoint=pair("worker"))
        self.sent: list[Message] = []
        self.dismissed: list[str] = []
        self.numbers: list[int] = []
        self.monitor = Child(MonitorSpec(1, None, 1, 1, "/", idle=True))
        self.woken: list[str] = []

    def __iter__(self) -> Iterator[Child]:
        return iter([self.worker, self.monitor])

    def wake(self, child: Child) -> None:
        """See ``ProcessManager``."""
        self.woken.append(child.spec.role)
        child.spec = replace(child.spec, idle=False)

    def send(
        self,
        child: Child,
        message: Message | bytes,
        kind: Kind = Kind.MESSAGE,
        number: int = 0,
    ) -> None:
        """See ``ProcessManager``."""
        if isinstance(message, bytes):
            message = TO_ROLE[child.spec.role].validate_json(message)
        assert isinstance(message, Message)
        self.sent.append(message)
        self.numbers.append(number)

    def restart(self, child: Child) -> None:
        """See ``ProcessManager``."""
        self.dismissed.append(child.spec.role)


class World:
    """A controller, its processes, and what the host was brought to."""

    def __init__(self, before: Config, tmp_path: Path) -> None:
        self.hosts: list[Config] = []
        self.refusal: PlatformError | None = None
        self.all = Everybody(before)
        self.files: list[Config | OperatorError] = []
        self.path = tmp_path / "file"
        self.path.touch()
        file = FilePoller([self.path])
        self.controller = Controller(
            before, STRATEGIES, read=self.read, file=file, adjust=self.adjust
        )
        self.controller.attach(cast(ProcessManager, self.all))

    def adjust(self, wanted: Config, again: Callable[[], object]) -> list[str]:
        """Take note, or refuse."""
        if self.refusal is not None:
            raise self.refusal
        self.hosts.append(wanted)
        return ["rules changed"]

    def read(self) -> Read:
        """The next file, or what is wrong with it."""
        file = self.files.pop(0)
        if isinstance(file, OperatorError):
            raise file
        return Read(LoadedConfig(file, Marks(), "file"), file, (), {})

    def turn(self) -> list[Message]:
        """One turn of the loop, in which the worker applies all that it is sent; all messages."""
        self.controller.turn(time.monotonic())
        for message in self.all.sent:
            self.all.worker.spec.heartbeat.applied = getattr(message, "version", 0)
        self.controller.turn(time.monotonic())
        return self.all.sent

    def count(self, flows: int) -> None:
        """So many flows has the worker to the backend 10.0.0.2."""
        (counters,) = [self.all.worker.spec.counters]
        assert counters is not None
        writer = CounterWriter(counters, Counted({"10.0.0.1": 5, "10.0.0.2": flows}))
        writer.tick()

    def states(self) -> dict[str, tuple[State, int]]:
        """The state and weight of every backend."""
        return {member.backend: (member.state, member.weight) for member in self.controller.pools}


Make = Callable[[Config], World]


class WithDiscovery(Everybody):
    """The same with a monitor that asks the DNS."""

    def __init__(self, before: Config) -> None:
        super().__init__(before)
        self.monitor = Child(MonitorSpec(1, None, 1, 1, "/", discovers=True), pid=2)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that makes the world of a configuration."""
    return lambda before: World(before, tmp_path)


def test_another_configuration_is_taken_over(make: Make) -> None:
    """By the host, the table, the worker in place, and by whom starts later."""
    world = make(config("10.0.0.1"))
    new = config("10.0.0.1", {"address": "10.0.0.3", "weight": 4}, strategy="wrr")
    change = world.controller.apply_config(new, "a test")
    assert change.words == (
        "service web: strategy rr → wrr",
        "service web: backend 10.0.0.3 added",
    )
    assert world.hosts == [new]
    assert world.states()["10.0.0.3"] == (State.READY, 4)
    (message,) = world.turn()
    assert isinstance(message, ApplyConfig)
    assert message.config == new
    assert message.states["web"]["10.0.0.3"] == ("ready", 4)
    assert cast(WorkerSpec, world.all.worker.spec).config == new
    assert world.all.dismissed == []


def test_nothing_changes_where_the_host_refuses(make: Make) -> None:
    """Neither the table nor any process hears of it."""
    before = config("10.0.0.1")
    world = make(before)
    world.refusal = PlatformError("no")
    with pytest.raises(PlatformError):
        world.controller.apply_config(config("10.0.0.2"), "a test")
    assert world.controller.config == world.controller.wanted == before
    assert world.all.sent == []
    assert list(world.states()) == ["10.0.0.1"]


def test_a_bad_file_changes_nothing(make: Make) -> None:
    """Whoever asked is told, and the next good one is taken."""
    world = make(config("10.0.0.1"))
    world.files = [ConfigError(["f:1:2: no"]), ConfigError(["f:1:2: no"]), config("10.0.0.2")]
    with structlog.testing.capture_logs() as logged:
        world.controller.on_hangup(lambda: None)
    assert not world.controller.loaded.success
    assert [(line["event"], line["why"]) for line in logged] == [
        ("configuration not reloaded, nothing changed", "f:1:2: no")
    ]
    asked: list[Message] = []
    world.controller.handlers.handle(ReloadRequest(listener="control"), asked.append)
    assert [a.lines for a in asked if isinstance(a, Refusal)] == [("f:1:2: no",)]
    assert (world.hosts, world.all.sent) == ([], [])
    world.controller.on_hangup(lambda: None)
    assert world.controller.loaded.success
    assert [b.name for b in world.controller.wanted.services[0].backends] == ["10.0.0.2"]


def test_who_asked_hears_when_it_is_so(make: Make) -> None:
    """In words, when the worker has taken it over."""
    world = make(config("10.0.0.1"))
    world.files = [config("10.0.0.1", strategy="wrr")]
    asked: list[Message] = []
    world.controller.handlers.handle(ReloadRequest(listener="control"), asked.append)
    world.controller.turn(time.monotonic())
    assert [type(message) for message in world.all.sent] == [ApplyConfig]
    assert asked == []
    world.turn()
    words = {"changed": ["service web: strategy rr → wrr"], "restart": []}
    assert asked == [Result(value=words)]


def test_the_first_check_starts_the_monitor(make: Make) -> None:
    """Once; until then it is idle."""
    world = make(config("10.0.0.1"))
    assert [child.spec.role for child in world.controller.processes()] == ["worker"]
    for interval in (3, 4):
        checked = config("10.0.0.1", check={"type": "tcp", "interval": interval})
        assert world.controller.apply_config(checked, "a test").restart == ()
    assert world.all.woken == ["monitor"]
    assert [child.spec.role for child in world.controller.processes()] == ["worker", "monitor"]


def test_the_same_again_changes_nothing(make: Make) -> None:
    """Nobody is told anything."""
    world = make(config("10.0.0.1"))
    assert world.controller.apply_config(config("10.0.0.1"), "a test").words == ()
    assert (world.hosts, world.turn()) == ([], [])


def test_what_was_set_by_hand_stays(make: Make) -> None:
    """A state for as long as the backend is there, a weight until the file has another."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    world.controller.weigh(world.controller.pools.find("web", "10.0.0.1"), 7)
    world.controller.weigh(world.controller.pools.find("web", "10.0.0.2"), 7)
    world.controller.apply_config(
        config("10.0.0.1", {"address": "10.0.0.2", "weight": 3}), "a test"
    )
    assert world.states() == {"10.0.0.1": (State.READY, 7), "10.0.0.2": (State.READY, 3)}


def test_a_backend_leaves_with_its_last_flow(make: Make) -> None:
    """Until then it drains, at the worker and on the host; then it is gone from everywhere."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    world.controller.apply_config(config("10.0.0.1"), "a test")
    assert world.states() == {"10.0.0.1": (State.READY, 1), "10.0.0.2": (State.DRAIN, 0)}
    now = 10.0 * PAUSE + world.controller.pools.find("web", "10.0.0.2").since
    for flows in (1, 0):
        assert [b.name for b in world.hosts[-1].services[0].backends] == ["10.0.0.1", "10.0.0.2"]
        world.count(flows)
        world.controller.turn(now)
        now += PAUSE
    assert world.hosts[-1] == config("10.0.0.1")
    assert list(world.states()) == ["10.0.0.1"]


def test_a_backend_that_comes_back_is_ready(make: Make) -> None:
    """With the weight of the file, whatever it had in between."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    world.controller.apply_config(config("10.0.0.1"), "a test")
    world.controller.apply_config(config("10.0.0.1", "10.0.0.2"), "a test")
    assert world.states()["10.0.0.2"] == (State.READY, 1)


def test_workers_are_replaced_where_the_way_of_forwarding_needs_another_path(make: Make) -> None:
    """What they start with is the new configuration."""
    world = make(config("10.0.0.1", forward="offload"))
    new = config("10.0.0.1")
    world.controller.apply_config(new, "a test")
    assert world.all.dismissed == ["worker"]
    assert [type(message) for message in world.turn()] == [SetStates]
    spec = cast(WorkerSpec, world.all.worker.spec)
    assert build(spec.config, 0, 0.0).head is None


@pytest.mark.parametrize("watch", [True, False])
def test_the_file_changes_on_disk(make: Make, watch: bool) -> None:
    """It is read again where that is wanted, and once; also one that then wants it no more."""
    world = make(config("10.0.0.1").model_copy(update={"watch": watch}))
    world.path.write_text("other")
    world.files = [config("10.0.0.1", strategy="wrr")]
    for look in range(1, 10):
        world.controller.turn(look * LOOK)
    assert len(world.files) == (0 if watch else 1)
    assert world.controller.wanted.services[0].strategy == ("wrr" if watch else "rr")


def test_every_change_of_a_state_is_a_line(make: Make) -> None:
    """A backend that goes down is a warning; what moves nothing says nothing."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    member = world.controller.pools.find("web", "10.0.0.1")
    with structlog.testing.capture_logs() as lines:
        world.controller.move(member, Event.CHECK_FAILED, "refused")
        world.controller.move(member, Event.CHECK_FAILED, "refused")
        world.controller.move(member, Event.CHECK_PASSED, "connected")
        world.controller.weigh(member, 4)
        world.controller.weigh(member, 4)
    assert world.all.sent == []
    world.turn()
    said = {"event": "backend changed", "service": "web", "backend": "10.0.0.1"}
    moved = {**said, "by": "health"}
    assert lines == [
        {**moved, "log_level": "warning", "state": "down", "before": "ready", "why": "refused"},
        {**moved, "log_level": "info", "state": "ready", "before": "down", "why": "connected"},
        {**said, "event": "weight changed", "log_level": "info", "weight": 4, "before": 1},
    ]
    (message,) = world.all.sent  # all of it at once
    assert isinstance(message, SetStates)
    assert message.states["web"]["10.0.0.1"] == ("ready", 4)


def test_an_answer_that_nothing_was_asked_for(make: Make) -> None:
    """What a worker sends beside its answers is logged, and changes nothing."""
    world = make(config("10.0.0.1"))
    with structlog.testing.capture_logs() as lines:
        world.controller.on_message(world.all.worker, Frame(FlowList(flows=(), more=False)))
    assert [line["log_level"] for line in lines] == ["error"]
    assert world.states() == {"10.0.0.1": (State.READY, 1)}
    assert world.all.sent == []


def test_status_is_all_of_it_at_once(make: Make) -> None:
    """The parts are what they are when asked for alone, but for the time that passes."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    world.count(7)
    replies: list[Message] = []
    for view in get_args(View):
        world.controller.handlers.handle(ShowRequest(listener="control", view=view), replies.append)
    values = [reply.value for reply in replies if isinstance(reply, Result)]
    services, backends, workers, health, status = values
    assert status["services"] == services
    assert status["health"] == health
    assert services[0]["flows"] == 12
    assert [row["backend"] for row in status["backends"]] == [row["backend"] for row in backends]
    assert [row["flows"] for row in status["backends"]] == [5, 7]
    assert [row["name"] for row in status["workers"]] == [row["name"] for row in workers]


def test_sources_come_with_a_reload(make: Make) -> None:
    """What a name had last stays with it; the monitor asks for the new name, and is heard."""
    world = make(config("10.0.0.1"))
    all_of_them = WithDiscovery(world.controller.config)
    world.controller.attach(cast(ProcessManager, all_of_them))
    source = {"dns": "_web._tcp.example"}
    world.files = [Config.model_validate({"services": [{**SERVICE, "backends": source}]})]
    assert world.controller.reload("a test").words == ()
    assert list(world.states()) == ["10.0.0.1"]
    name = DnsName("_web._tcp.example", "", 4)
    assert all_of_them.sent == [SetSources(names=(name,), files=())]
    record = Record(ipaddress.ip_address("10.0.0.5"), 8080, 2)
    answer = DnsUpdate(name=name, records=(record,), ttl=30)
    world.controller.on_message(all_of_them.monitor, Frame(answer))
    assert world.states()["10.0.0.5:8080"] == (State.READY, 2)
    all_of_them.sent.clear()
    world.controller.on_ready(all_of_them.monitor)
    assert all_of_them.sent == [SetSources(names=(name,), files=())]


def test_sources_without_discovery(make: Make) -> None:
    """They take a restart, and the backends stay as they are."""
    world = make(config("10.0.0.1"))
    source = {"file": "/etc/web"}
    world.files = [Config.model_validate({"services": [{**SERVICE, "backends": source}]})]
    change = world.controller.reload("a test")
    assert change.restart == (
        "service web takes a restart: nobody looks where its backends are listed",
    )
    assert list(world.states()) == ["10.0.0.1"]


def test_what_a_process_that_hangs_was_about(make: Make) -> None:
    """A number that is none of ours, or of a strategy of ours, says nothing."""
    world = make(config("10.0.0.1"))
    life = world.all.worker.spec.heartbeat
    assert world.controller.on_hang(world.all.worker) == {}
    life.deciding[0] = identity("web")
    assert world.controller.on_hang(world.all.worker) == {}  # no policy
    life.deciding[0] = 12345
    with life.long_work():
        assert world.controller.on_hang(world.all.worker) == {"doing": "takes long"}


def test_a_reload_has_policies_tried_again(make: Make) -> None:
    """A policy that did not return is told of to who carries flows, until then."""
    policy = Config.model_validate(
        {"services": [{**SERVICE, "strategy": "mine:Own", "backends": ["10.0.0.1"]}]}
    )
    world = make(policy)
    world.files = [policy]
    world.all.worker.spec.heartbeat.deciding[0] = identity("web")
    assert world.controller.on_hang(world.all.worker) == {"deciding": "web", "strategy": "mine:Own"}
    assert world.all.sent == [SuspendPolicies(services=("web",))]
    assert world.controller.conditions.status == "degraded"
    world.controller.reload("a test")
    assert world.all.sent[1:] == [SuspendPolicies(services=())]
    assert world.controller.conditions.status == "healthy"

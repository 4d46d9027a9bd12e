"""The controller: another configuration reaches all consumers, or none."""

from __future__ import annotations

import gc
import ipaddress
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import structlog
from stand_ins import RecordedProcesses, in_steps, supervisors_end

from paraglider.config.diagnostics import ConfigError, Marks
from paraglider.config.load import LoadedConfig
from paraglider.config.model import Config
from paraglider.core.pool import Event, State
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.controller.controller import Controller
from paraglider.daemon.ipc import Frame
from paraglider.daemon.messages import (
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
    UnplacedServices,
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
    """The counters of a worker: flows by backend."""

    def __init__(self, flows: dict[str, int]) -> None:
        self._flows = flows

    def figures(self) -> dict[str, int]:
        """See ``counters.CounterSource``."""
        return {}

    def traffic(self) -> Iterator[tuple[str, str, dict[str, int]]]:
        """See ``counters.CounterSource``."""
        for backend, flows in self._flows.items():
            yield "web", backend, {"flows": flows}


class Everybody(RecordedProcesses):
    """The processes: one running worker, and the messages to it."""

    def __init__(self, before: Config) -> None:
        spec = WorkerSpec(0, 0, before, 1, 1, counters=Counters())
        self.worker = Child(spec, pid=1, endpoint=supervisors_end("worker"))
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

    def received(self, child: Child, message: Message, body: bytes, number: int) -> None:
        """Record it."""
        self.sent.append(message)
        self.numbers.append(number)

    def restart(self, child: Child) -> None:
        """See ``ProcessManager``."""
        self.dismissed.append(child.spec.role)


class World:
    """A controller, its processes, and the applied configurations of the host."""

    def __init__(self, before: Config, tmp_path: Path) -> None:
        self.hosts: list[Config] = []
        self.refusal: PlatformError | None = None
        self.all = Everybody(before)
        self.files: list[Config | OperatorError] = []
        self.path = tmp_path / "file"
        self.path.touch()
        file = FilePoller([self.path])
        self.controller = Controller(
            before, STRATEGIES, read=in_steps(self.read), file=file, adjust=self.adjust
        )
        self.controller.attach(cast(ProcessManager, self.all))

    def adjust(self, wanted: Config, again: Callable[[], object]) -> list[str]:
        """Record the configuration, or refuse it."""
        if self.refusal is not None:
            raise self.refusal
        self.hosts.append(wanted)
        return ["rules changed"]

    def read(self) -> Read:
        """The next file, or its mistake."""
        file = self.files.pop(0)
        if isinstance(file, OperatorError):
            raise file
        return Read(LoadedConfig(file, Marks(), "file"), file, (), {})

    def turn(self) -> list[Message]:
        """One turn of the loop, in which the worker applies its messages; returns all messages."""
        self.controller.turn(time.monotonic())
        for message in self.all.sent:
            self.all.worker.spec.heartbeat.applied = getattr(message, "version", 0)
        self.controller.turn(time.monotonic())
        return self.all.sent

    def until(self, condition: Callable[[], object]) -> None:
        """Turns of the loop until ``condition`` holds: a file is read and compared in several."""
        for _ in range(10):
            if condition():
                return
            self.controller.turn(time.monotonic())
        raise AssertionError("it does not come about")

    def count(self, flows: int) -> None:
        """Set the worker's number of flows to the backend 10.0.0.2."""
        (counters,) = [self.all.worker.spec.counters]
        assert counters is not None
        writer = CounterWriter(counters, Counted({"10.0.0.1": 5, "10.0.0.2": flows}))
        writer.tick()

    def states(self) -> dict[str, tuple[State, int]]:
        """The state and weight of every backend."""
        return {
            member.backend: (member.state, member.weight) for member in self.controller.store.pools
        }


Make = Callable[[Config], World]


class WithDiscovery(Everybody):
    """The same with a monitor that queries the DNS."""

    def __init__(self, before: Config) -> None:
        super().__init__(before)
        self.monitor = Child(MonitorSpec(1, None, 1, 1, "/", discovers=True), pid=2)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that makes the world of a configuration."""
    return lambda before: World(before, tmp_path)


def test_another_configuration_is_taken_over(make: Make) -> None:
    """By the host, the table, the worker in place, and processes that start later."""
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
    """Neither the table nor any process changes."""
    before = config("10.0.0.1")
    world = make(before)
    world.refusal = PlatformError("no")
    with pytest.raises(PlatformError):
        world.controller.apply_config(config("10.0.0.2"), "a test")
    assert world.controller.store.config == world.controller.store.wanted == before
    assert world.all.sent == []
    assert list(world.states()) == ["10.0.0.1"]


def test_a_bad_file_changes_nothing(make: Make) -> None:
    """The requester gets the error, and the next valid file is applied."""
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
    world.until(lambda: world.controller.loaded.success)
    assert [b.name for b in world.controller.store.wanted.services[0].backends] == ["10.0.0.2"]


def test_the_answer_comes_after_the_change(make: Make) -> None:
    """As text, when the worker has applied it."""
    world = make(config("10.0.0.1"))
    world.files = [config("10.0.0.1", strategy="wrr")]
    asked: list[Message] = []
    world.controller.handlers.handle(ReloadRequest(listener="control"), asked.append)
    world.until(lambda: world.all.sent)
    assert [type(message) for message in world.all.sent] == [ApplyConfig]
    assert asked == []
    world.turn()
    words = {"changed": ["service web: strategy rr → wrr"], "restart": []}
    assert asked == [Result(value=words)]


def test_systemd_is_told_after_the_change(make: Make) -> None:
    """SIGHUP is over when the worker has applied the file; a bad file is over at once."""
    world = make(config("10.0.0.1"))
    world.files = [config("10.0.0.1", strategy="wrr"), ConfigError(["f:1:2: no"])]
    ends: list[int] = []
    for number in (1, 2):
        world.controller.on_hangup(lambda number=number: ends.append(number))
        if number == 1:
            world.until(lambda: world.all.sent)
            assert ends == []
        world.turn()
        assert ends[-1] == number


def test_many_reloads_leave_nothing_behind(make: Make) -> None:
    """A backend is exchanged for another 300 times: less than an object a reload stays."""
    world = make(config("10.0.0.1", "10.0.0.2"))

    def reload(times: int) -> int:
        for number in range(times):
            changed = config("10.0.0.1", f"10.0.0.{2 + number % 2}")
            assert world.controller.apply_config(changed, "a test").words
            world.turn()
            world.all.sent.clear()
            world.hosts.clear()
        gc.collect()
        return len(gc.get_objects())

    world.controller.apply_config(config("10.0.0.1", "10.0.0.3"), "a test")
    before = reload(20)
    assert reload(300) - before < 300
    assert len(world.controller.store.desired.draining) <= 1


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
    """No message is sent."""
    world = make(config("10.0.0.1"))
    assert world.controller.apply_config(config("10.0.0.1"), "a test").words == ()
    assert (world.hosts, world.turn()) == ([], [])


def test_what_was_set_by_hand_stays(make: Make) -> None:
    """A state for as long as the backend is there, a weight until the file has another."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    world.controller.store.set_weight(world.controller.store.pools.find("web", "10.0.0.1"), 7)
    world.controller.store.set_weight(world.controller.store.pools.find("web", "10.0.0.2"), 7)
    world.controller.apply_config(
        config("10.0.0.1", {"address": "10.0.0.2", "weight": 3}), "a test"
    )
    assert world.states() == {"10.0.0.1": (State.READY, 7), "10.0.0.2": (State.READY, 3)}


def test_a_backend_leaves_with_its_last_flow(make: Make) -> None:
    """Until then it drains, at the worker and on the host; then it is removed everywhere."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    world.controller.apply_config(config("10.0.0.1"), "a test")
    assert world.states() == {"10.0.0.1": (State.READY, 1), "10.0.0.2": (State.DRAIN, 0)}
    now = 10.0 * PAUSE + world.controller.store.pools.find("web", "10.0.0.2").since
    for flows in (1, 0):
        assert [b.name for b in world.hosts[-1].services[0].backends] == ["10.0.0.1", "10.0.0.2"]
        world.count(flows)
        world.controller.turn(now)
        now += PAUSE
    assert world.hosts[-1] == config("10.0.0.1")
    assert list(world.states()) == ["10.0.0.1"]


def test_a_backend_that_comes_back_is_ready(make: Make) -> None:
    """With the file's weight, whatever it was in between."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    world.controller.apply_config(config("10.0.0.1"), "a test")
    world.controller.apply_config(config("10.0.0.1", "10.0.0.2"), "a test")
    assert world.states()["10.0.0.2"] == (State.READY, 1)


def test_workers_are_replaced_where_the_way_of_forwarding_needs_another_path(make: Make) -> None:
    """They start with the new configuration."""
    world = make(config("10.0.0.1", forward="offload"))
    new = config("10.0.0.1")
    world.controller.apply_config(new, "a test")
    assert world.all.dismissed == ["worker"]
    assert [type(message) for message in world.turn()] == [SetStates]
    spec = cast(WorkerSpec, world.all.worker.spec)
    assert build(spec.config, 0, 0.0).head is None


@pytest.mark.parametrize("watch", [True, False])
def test_the_file_changes_on_disk(make: Make, watch: bool) -> None:
    """With `watch` it is read again, once; also if the new file has no `watch`."""
    world = make(config("10.0.0.1").model_copy(update={"watch": watch}))
    world.path.write_text("other")
    world.files = [config("10.0.0.1", strategy="wrr")]
    for look in range(1, 10):
        world.controller.turn(look * LOOK)
    assert len(world.files) == (0 if watch else 1)
    assert world.controller.store.wanted.services[0].strategy == ("wrr" if watch else "rr")


def test_every_change_of_a_state_is_a_line(make: Make) -> None:
    """A backend that goes down is a warning; an event without a change has no line."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    member = world.controller.store.pools.find("web", "10.0.0.1")
    with structlog.testing.capture_logs() as lines:
        world.controller.store.move(member, Event.CHECK_FAILED, "refused", time.monotonic())
        world.controller.store.move(member, Event.CHECK_FAILED, "refused", time.monotonic())
        world.controller.store.move(member, Event.CHECK_PASSED, "connected", time.monotonic())
        world.controller.store.set_weight(member, 4)
        world.controller.store.set_weight(member, 4)
    assert world.all.sent == []
    world.turn()
    said = {"event": "backend changed", "service": "web", "backend": "10.0.0.1"}
    moved, weighed = {**said, "by": "health"}, {**said, "event": "weight changed"}
    assert lines == [
        {**moved, "log_level": "warning", "state": "down", "before": "ready", "why": "refused"},
        {**moved, "log_level": "info", "state": "ready", "before": "down", "why": "connected"},
        {**weighed, "log_level": "info", "weight": 4, "before": 1, "by": "operator"},
    ]
    (message,) = world.all.sent  # all of it at once
    assert isinstance(message, SetStates)
    assert message.states["web"]["10.0.0.1"] == ("ready", 4)


def test_an_answer_that_nothing_was_asked_for(make: Make) -> None:
    """A message of a worker that is no answer is logged, and changes nothing."""
    world = make(config("10.0.0.1"))
    with structlog.testing.capture_logs() as lines:
        world.controller.on_message(world.all.worker, Frame(FlowList(flows=(), more=False)))
    assert [line["log_level"] for line in lines] == ["error"]
    assert world.states() == {"10.0.0.1": (State.READY, 1)}
    assert world.all.sent == []


def test_services_without_room_in_the_kernel_are_noted(make: Make) -> None:
    """Those that the worker reported last."""
    world = make(config("10.0.0.1"))
    for services in (("web", "dns"), ("web",), ()):
        world.controller.on_message(world.all.worker, Frame(UnplacedServices(services=services)))
        assert world.controller.carrier.unplaced == frozenset(services)


def test_status_is_all_of_it_at_once(make: Make) -> None:
    """The parts equal those of single requests, except for times."""
    world = make(config("10.0.0.1", "10.0.0.2"))
    world.count(7)
    replies: list[Message] = []
    for view in get_args(View):
        world.controller.handlers.handle(ShowRequest(listener="control", view=view), replies.append)
    values = [reply.value for reply in replies if isinstance(reply, Result)]
    services, backends, workers, health, carrier, node, status = values
    assert status["services"] == services
    assert status["carrier"] == carrier
    assert status["health"] == health
    assert {**status["node"], "seconds": None} == {**node, "seconds": None, "health": "healthy"}
    assert services[0]["flows"] == 12
    assert [row["backend"] for row in status["backends"]] == [row["backend"] for row in backends]
    assert [row["flows"] for row in status["backends"]] == [5, 7]
    assert [row["name"] for row in status["workers"]] == [row["name"] for row in workers]


def test_sources_come_with_a_reload(make: Make) -> None:
    """The last backends of a name stay with it; the monitor queries the new name, and its answers
    are applied.
    """
    world = make(config("10.0.0.1"))
    all_of_them = WithDiscovery(world.controller.store.config)
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


def test_the_first_file_of_backends_replaces_the_monitor(make: Make, tmp_path: Path) -> None:
    """It needs the host's root directory for it, and none when the last one is gone."""
    world = make(config("10.0.0.1"))
    all_of_them = WithDiscovery(world.controller.store.config)
    world.controller.attach(cast(ProcessManager, all_of_them))
    listing = tmp_path / "backends"
    listing.write_text("10.0.0.1\n")
    service = {**SERVICE, "backends": {"file": str(listing)}}
    named = Config.model_validate({"services": [service]})
    world.files = [named, named, config("10.0.0.1")]
    for chroot, replaced in (("/", 1), ("/", 1), ("/var/run/empty", 2)):
        world.controller.reload("a test")
        assert all_of_them.dismissed == ["monitor"] * replaced
        spec = all_of_them.monitor.spec.updated(world.controller.startup_state())
        assert isinstance(spec, MonitorSpec)
        assert spec.chroot == chroot
        all_of_them.monitor.starts += 1


def test_sources_without_discovery(make: Make) -> None:
    """They need a restart, and the backends stay."""
    world = make(config("10.0.0.1"))
    source = {"file": "/etc/web"}
    world.files = [Config.model_validate({"services": [{**SERVICE, "backends": source}]})]
    change = world.controller.reload("a test")
    assert change.restart == (
        "service web takes a restart: no process watches its list of backends",
    )
    assert list(world.states()) == ["10.0.0.1"]


def test_what_a_process_that_hangs_was_about(make: Make) -> None:
    """An unknown number, or one of a built-in strategy, names no policy."""
    world = make(config("10.0.0.1"))
    life = world.all.worker.spec.heartbeat
    assert world.controller.on_hang(world.all.worker) == {}
    life.deciding[0] = identity("web")
    assert world.controller.on_hang(world.all.worker) == {}  # no policy
    life.deciding[0] = 12345
    with life.long_work():
        assert world.controller.on_hang(world.all.worker) == {"doing": "takes long"}


def test_a_reload_has_policies_tried_again(make: Make) -> None:
    """A suspended policy is sent to the processes with flows, until a reload."""
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

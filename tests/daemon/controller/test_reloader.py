"""Reloads: the file is read and applied, or nothing changes; flows are counted before they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from stand_ins import in_steps

from paraglider.config.model import Config
from paraglider.config.steps import Steps, completed
from paraglider.daemon.controller.reloader import FlowCounts, Reloader
from paraglider.daemon.inputs.reload import FlowLoss, ReloadOutcome
from paraglider.daemon.messages import Message, SetSources, WriteCounters
from paraglider.daemon.settings import Read
from paraglider.daemon.stats.traffic import TrafficCounters
from paraglider.errors import OperatorError, PlatformError
from paraglider.host.file_watch import FilePoller
from paraglider.netfilter.rules.marks import backend_marks


def config(forward: str = "offload") -> Config:
    """One service of two backends."""
    return Config.model_validate(
        {
            "services": [
                {
                    "name": "web",
                    "vip": "192.0.2.1/24",
                    "protocol": "tcp",
                    "ports": 80,
                    "forward": forward,
                    "backends": ["10.0.0.1", "10.0.0.2"],
                }
            ]
        }
    )


class Host:
    """The workers and the host helper, which count when ``written`` and ``counted`` are called."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], Message]] = []
        self.written: list[Callable[[Any], object]] = []
        self.counted: list[Callable[[Mapping[int, int] | None], object]] = []
        self.full = False

    def request(self, to: Iterable[int], message: Message, _deadline: float, done: Any) -> None:
        """See ``Broadcasts``."""
        if self.full:
            raise PlatformError("too many requests at a time")
        self.asked.append((list(to), message))
        self.written.append(done)

    def count(self, then: Callable[[Mapping[int, int] | None], object]) -> None:
        """See ``HostRequests``."""
        self.counted.append(then)

    def flows(self, forward: str) -> FlowCounts:
        """The flows of ``config``; the workers have counted 7 of "web"."""
        known: Any = SimpleNamespace(total=lambda name: {"flows": 7 if name == "web" else None})
        kernel: Any = SimpleNamespace(traffic=lambda _: cast(TrafficCounters, known))
        store: Any = SimpleNamespace(config=config(forward))
        return FlowCounts(store, kernel, cast(Any, self), cast(Any, self), list, lambda: [1, 2])


def test_flows_are_counted_by_all() -> None:
    """First the workers write their counters, then the host helper lists connections; then the
    result is reported.
    """
    host, ends = Host(), list[int]()
    flows = host.flows("offload")
    flows.refresh(lambda: ends.append(1))
    assert host.asked == [([1, 2], WriteCounters())]
    assert host.counted == []
    host.written.pop()({})
    assert ends == []
    marks = backend_marks(config())["web"]
    host.counted.pop()({**dict.fromkeys(marks, 2), 1: 99})
    assert ends == [1]
    assert flows.of("web") == 4


@pytest.mark.parametrize("forward", ["offload", "nat"])
def test_where_the_kernel_cannot_be_asked(forward: str) -> None:
    """The last counters are used; too many open requests cause no waiting."""
    host, ends = Host(), list[int]()
    host.full = True
    flows = host.flows(forward)
    flows.refresh(lambda: ends.append(1))
    host.counted.pop()(None)
    assert ends == [1]
    assert flows.of("web") == 7
    assert flows.of("no such service") == 0


def test_a_service_that_the_kernel_does_not_carry() -> None:
    """Its flows are those of the workers, whatever the list."""
    host = Host()
    flows = host.flows("nat")
    flows.refresh(lambda: None)
    host.written.pop()({})
    host.counted.pop()({1: 99})
    assert flows.of("web") == 7


ORDER = SetSources(names=(), files=("/etc/backends",))


class Sources:
    """Backends of other sources; records the calls in ``done``."""

    def __init__(self, done: list[Any]) -> None:
        self._done = done

    def prepared(self, wanted: Any, listed: Any) -> Any:
        """See ``SourceInput``."""
        return f"{wanted} with {listed}"

    def order(self) -> SetSources:
        """See ``SourceInput``."""
        return ORDER

    def apply_config(self, wanted: Any) -> None:
        """See ``SourceInput``."""
        self._done.append(("sources", wanted))


class World:
    """A controller, sources and processes that record the calls."""

    def __init__(self, file: Path, discovering: list[int]) -> None:
        self.done: list[Any] = []
        self.error: Exception | None = None
        found = SimpleNamespace(
            config="new", listed="listed", warnings=("careful",), digests={"seed": "new"}
        )
        self.found = cast(Read, found)
        self.reloader = Reloader(
            cast(Any, self),
            cast(Any, SimpleNamespace(discovering=lambda: discovering, send=self._send)),
            cast(Any, Sources(self.done)),
            cast(Any, SimpleNamespace(of=lambda _: 3, refresh=lambda then: then())),
            read=in_steps(self._read),
            file=FilePoller([file]),
            digests={"seed": "old"},
        )

    def _read(self) -> Read:
        if self.error is not None:
            raise self.error
        return self.found

    def _send(self, index: int, message: Any) -> None:
        self.done.append(("send", index, message))

    def apply_config(
        self, wanted: Any, requested_by: str, _again: Callable[[], object], _ending: FlowLoss
    ) -> ReloadOutcome:
        """See ``Applies``."""
        if self.error is not None:
            raise self.error
        self.done.append(("apply", wanted, requested_by))
        return ReloadOutcome(Config.model_construct(services=()), ("changed",), ())

    def planning(self, wanted: Any) -> Steps[None]:
        """See ``Applies``."""
        self.done.append(("plan", wanted))
        yield

    def reloaded(self) -> None:
        """See ``Applies``."""
        self.done.append("reloaded")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of the configuration."""
    path = tmp_path / "file"
    path.touch()
    return path


def test_a_file_is_applied(file: Path) -> None:
    """As it was read; without sources no message is sent."""
    world = World(file, [])
    assert world.reloader.reload("a test").words == ("changed",)
    assert world.done == [("plan", "new"), ("apply", "new", "a test"), "reloaded"]
    assert world.reloader.loaded.success
    assert world.reloader.loaded.digests == {"seed": "new"}


def test_a_file_with_sources(file: Path) -> None:
    """Its backends are applied with it, and processes that discover get the sources."""
    world = World(file, [4, 5])
    world.reloader.reload("a test")
    assert world.done == [
        ("apply", "new with listed", "a test"),
        ("sources", "new"),
        "reloaded",
        ("send", 4, ORDER),
        ("send", 5, ORDER),
    ]


def test_a_file_that_was_read_is_not_read_again(file: Path) -> None:
    """A reload that waited for the host continues with the data it has read."""
    world = World(file, [])
    found = completed(world.reloader.read())
    world.reloader._read = lambda: pytest.fail("read again")
    world.reloader.reload("a test", found)
    assert world.done == [("plan", "new"), ("apply", "new", "a test"), "reloaded"]


def test_warnings_are_logged(file: Path) -> None:
    """At each reading, a line each."""
    with structlog.testing.capture_logs() as logged:
        completed(World(file, []).reloader.read())
    assert [(line["event"], line["log_level"]) for line in logged] == [("careful", "warning")]


@pytest.mark.parametrize("at", ["read", "apply"])
def test_what_fails_changes_nothing(file: Path, at: str) -> None:
    """A mistake in the file, a host that refuses: it is raised, and the last reload has failed."""
    world = World(file, [4])
    found = completed(world.reloader.read()) if at == "apply" else None
    world.error = OperatorError("no", "yes")
    with pytest.raises(OperatorError):
        world.reloader.reload("a test", found)
    assert world.done == []
    assert not world.reloader.loaded.success
    assert world.reloader.loaded.digests == {"seed": "old"}
    world.error = None
    world.reloader.reload("a test")
    assert world.reloader.loaded.success


def test_a_file_that_changes_while_it_is_read_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's state is recorded before it is read, not after."""
    world = World(file, [])
    order: list[str] = []
    monkeypatch.setattr(world.reloader.file, "mark_read", lambda: order.append("mark_read"))

    def read() -> Read:
        order.append("read")
        return world.found

    world.reloader._read = in_steps(read)
    completed(world.reloader.read())
    assert order == ["mark_read", "read"]


def test_addresses_of_the_host_are_applied_as_a_reload(file: Path) -> None:
    """From the file as it was read, when no reload is in progress; what was applied is noted."""
    world = World(file, [])
    noted: list[Any] = []
    other = cast(Read, SimpleNamespace(config="moved", listed="listed", warnings=(), digests={}))
    own = SimpleNamespace(changed=lambda _: other, wait=lambda _: 7.0, note_applied=noted.append)
    assert world.reloader.follow(1.0) == inf
    world.reloader._own = cast(Any, own)
    assert world.reloader.follow(1.0) == 7.0
    assert world.done == [("apply", "moved", "addresses of this host"), "reloaded"]
    assert noted == [other]
    world.reloader.queue._jobs.append(cast(Any, None))
    assert world.reloader.follow(1.0) == 7.0
    assert len(noted) == 1

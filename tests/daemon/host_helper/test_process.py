"""The host helper as a process in a network namespace: requests, reports, and its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import netns
from stand_ins import ForkedProcess
from waiting import wait_until

from paraglider.config.model import Config
from paraglider.daemon.host_helper import process as module
from paraglider.daemon.host_helper.arrivals import Arrivals
from paraglider.daemon.host_helper.process import HostHelperSpec, Requests, needed
from paraglider.daemon.ipc import Frame, IpcEndpoint, Kind
from paraglider.daemon.messages import (
    Acknowledged,
    ApplyHost,
    ConnectionCounts,
    CountConnections,
    ForgetConnections,
    HostChanged,
    HostConditions,
    LoadRules,
    Message,
    Reading,
    ReadTables,
    Refusal,
    WriteCounters,
)
from paraglider.host.announce import Announcer
from paraglider.host.privileges import RECONCILER_CAPABILITIES
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import new_prefix

CONFIG = Config.model_validate(
    {
        "services": [
            {"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]},
            {
                "name": "p", "vip": "2001:db8::1/64", "protocol": "tcp", "ports": 80,
                "forward": "proxy", "backends": ["fd00::1"],
            },
        ]
    }
)  # fmt: skip


class Service:
    """Records the needed families."""

    def __init__(self) -> None:
        self.needed: frozenset[int] | None = None

    def set_families(self, families: Any) -> None:
        """See ``HostService``."""
        self.needed = frozenset(families)


def test_what_has_to_be_set_up() -> None:
    """Families with only proxy services need none."""
    assert needed(CONFIG) == {4}


def test_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has an answer; a failure and an unknown request are answered by a refusal."""
    said: list[Any] = []

    class Rules:
        def adjust(self, config: Config) -> list[str]:
            said.append(config)
            return ["rules"]

    monkeypatch.setattr(module.Nft, "load", lambda _, text: said.append(text))
    service = Service()
    arrivals = Arrivals(CONFIG, None, make=lambda: Announcer.__new__(Announcer))
    requests = Requests(Rules(), service, arrivals)  # type: ignore[arg-type]
    assert requests.answer(ApplyHost(config=CONFIG)) == HostChanged(done=("rules",))
    assert said == [CONFIG]
    assert service.needed == {4}
    assert requests.answer(LoadRules(text="flush")) == Acknowledged()
    assert said[-1] == "flush"
    monkeypatch.setattr(module, "Conntrack", refuse)
    for bad in (ForgetConnections(), WriteCounters()):
        answer = requests.answer(bad)
        assert isinstance(answer, Refusal)
        assert answer.fault == "platform"


def refuse() -> None:
    """A kernel without conntrack."""
    raise OSError(93, "Protocol not supported")


class Running(ForkedProcess):
    """A host helper that was forked into ``namespace``, and the supervisor's end."""

    def __init__(self, namespace: str) -> None:
        def life(endpoint: IpcEndpoint, report: int, parent: int) -> int:
            netns.setns(namespace)
            spec = HostHelperSpec(0, CONFIG, frozenset({4, 6}), endpoint=endpoint)
            return module.run(spec, report, parent)

        super().__init__("host helper", life)
        self.received: list[Frame] = []

    def until(self, done: Callable[[Frame], bool]) -> Message:
        """The first message for which ``done`` holds."""

        def found() -> Message | None:
            self.received += self.endpoint.receive()
            return next((frame.message for frame in self.received if done(frame)), None)

        message = wait_until(found, lambda: self.received)
        assert message is not None
        return message

    def ask(self, number: int, request: Message) -> Message:
        """The answer to a request."""
        self.endpoint.send(request, Kind.REQUEST, number)
        return self.until(lambda frame: (frame.kind, frame.number) == (Kind.ANSWER, number))


@pytest.fixture
def running() -> Iterator[Running]:
    """A host helper in a namespace without a set-up."""
    with Namespace(f"{new_prefix()}-host") as namespace:
        it = Running(namespace.name)
        yield it
        it.close()


@pytest.mark.root
def test_its_life(running: Running) -> None:
    """It reports the missing set-up, answers, has two capabilities, and exits on request."""
    said = running.until(lambda frame: isinstance(frame.message, HostConditions))
    assert isinstance(said, HostConditions)
    assert list(said.found) == ["set-up of IPv4"]
    assert running.ask(1, ApplyHost(config=CONFIG)) == HostChanged(done=())
    assert isinstance(running.ask(2, CountConnections()), ConnectionCounts | Refusal)
    status = Path(f"/proc/{running.pid}/status").read_text()
    held = {line.split()[0]: line.split()[1] for line in status.splitlines() if "Cap" in line}
    wanted = sum(1 << one for one in RECONCILER_CAPABILITIES)
    assert [int(held[f"Cap{name}:"], 16) for name in ("Prm", "Eff", "Bnd")] == [wanted] * 3
    os.kill(running.pid, signal.SIGTERM)
    assert running.ended() == 0


@pytest.mark.root
def test_a_slow_nft_delays_no_request_that_runs_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections are counted and tables are read while nft hangs; its request comes later."""
    stand_in, release = tmp_path / "nft", tmp_path / "release"
    stand_in.write_text(f"#!/bin/sh\nwhile [ ! -e {release} ]; do sleep 0.02; done\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Namespace(f"{new_prefix()}-host") as namespace:
        running = Running(namespace.name)
        try:
            running.endpoint.send(LoadRules(text="flush"), Kind.REQUEST, 1)
            assert running.ask(2, CountConnections()) == ConnectionCounts(marks={})
            assert isinstance(running.ask(3, ReadTables(families=(4,))), Reading)
            assert running.ask(4, ForgetConnections()) == Acknowledged()
            assert not [frame for frame in running.received if frame.number == 1]
            release.touch()
            assert running.until(lambda frame: frame.number == 1) == Acknowledged()
        finally:
            release.touch()
            running.close()


@pytest.mark.root
def test_sigterm_as_soon_as_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its report and its first turn SIGTERM ends it well, too."""
    monkeypatch.setattr(module, "Arrivals", lambda *_: signal.raise_signal(signal.SIGTERM))
    with Namespace(f"{new_prefix()}-host") as namespace:
        running = Running(namespace.name)
        try:
            assert running.ended() == 0
        finally:
            running.close()


@pytest.mark.root
def test_it_ends_with_the_supervisor(running: Running) -> None:
    """Its endpoint is closed."""
    running.endpoint.close()
    assert running.ended() == 0

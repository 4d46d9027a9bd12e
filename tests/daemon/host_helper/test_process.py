"""The reconciler as a process in a namespace of its own: orders, news, and its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import netns

from paraglider.config.model import Config
from paraglider.daemon.host_helper import process as module
from paraglider.daemon.host_helper.arrivals import Arrivals
from paraglider.daemon.host_helper.process import Orders, ReconcilerSpec, needed
from paraglider.daemon.processes.channel import Channel
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
    """Takes note of what is needed."""

    def __init__(self) -> None:
        self.needed: frozenset[int] | None = None

    def need(self, families: Any) -> None:
        """See ``HostService``."""
        self.needed = frozenset(families)


def test_what_has_to_be_set_up() -> None:
    """Not a family whose connections are all proxied."""
    assert needed(CONFIG) == {4}


def test_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its answer; what fails and what is none is an answer too."""
    said: list[Any] = []

    class Rules:
        def adjust(self, config: Config) -> list[str]:
            said.append(config)
            return ["rules"]

    monkeypatch.setattr(module.Nft, "load", lambda _, text: said.append(text))
    service = Service()
    arrivals = Arrivals(CONFIG, None, make=lambda: Announcer.__new__(Announcer))
    orders = Orders(Rules(), service, arrivals)  # type: ignore[arg-type]
    plain = CONFIG.model_dump(mode="json", by_alias=True)
    assert orders.do({"do": "adjust", "config": plain}) == {"done": ["rules"]}
    assert said == [CONFIG]
    assert service.needed == {4}
    assert orders.do({"do": "hash", "text": "flush"}) == {}
    assert said[-1] == "flush"
    for bad in ({"do": "adjust"}, {"do": "adjust", "config": 7}, {"do": "forget"}, {"do": []}, {}):
        assert orders.do(bad)["fault"] == "platform"


class Running:
    """A reconciler that was forked into ``namespace``, and the hub's end of its channel."""

    def __init__(self, namespace: str) -> None:
        self.channel, theirs = Channel.pair()
        reading, writing = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                os.close(reading)
                self.channel.close()
                netns.setns(namespace)
                spec = ReconcilerSpec(0, CONFIG, frozenset({4, 6}), channel=theirs)
                status = module.run(spec, writing, parent)
            finally:
                os._exit(status)
        os.close(writing)
        theirs.close()
        with os.fdopen(reading, "rb") as report:
            assert report.read() == b"ready"
        self.heard: list[dict[str, Any]] = []

    def until(self, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message for which ``done`` holds."""
        deadline = time.monotonic() + 20
        while True:
            found = next((message for message in self.heard if done(message)), None)
            if found is not None:
                return found
            assert time.monotonic() < deadline, self.heard
            self.heard += self.channel.receive()
            time.sleep(0.02)

    def ask(self, number: int, **order: Any) -> dict[str, Any]:
        """The answer to an order."""
        self.channel.send({**order, "id": number})
        return self.until(lambda message: message.get("re") == number)

    def ended(self) -> int:
        """The exit code."""
        deadline = time.monotonic() + 20
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def running() -> Iterator[Running]:
    """One in a namespace where nothing is set up."""
    with Namespace(f"{new_prefix()}-host") as namespace:
        it = Running(namespace.name)
        yield it
        if it.pid:
            os.kill(it.pid, signal.SIGKILL)
            os.waitpid(it.pid, 0)


@pytest.mark.root
def test_its_life(running: Running) -> None:
    """It says that nothing is set up, answers, has two capabilities, and ends when asked."""
    said = running.until(lambda message: message.get("do") == "conditions")
    assert list(said["found"]) == ["set-up of IPv4"]
    plain = CONFIG.model_dump(mode="json", by_alias=True)
    assert running.ask(1, do="adjust", config=plain) == {"done": [], "re": 1}
    assert running.ask(2, do="count")["re"] == 2
    status = Path(f"/proc/{running.pid}/status").read_text()
    held = {line.split()[0]: line.split()[1] for line in status.splitlines() if "Cap" in line}
    wanted = sum(1 << one for one in RECONCILER_CAPABILITIES)
    assert [int(held[f"Cap{name}:"], 16) for name in ("Prm", "Eff", "Bnd")] == [wanted] * 3
    os.kill(running.pid, signal.SIGTERM)
    assert running.ended() == 0


@pytest.mark.root
def test_a_slow_nft_delays_no_order_that_runs_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections are counted and tables are read while nft hangs; its order is answered after."""
    stand_in, release = tmp_path / "nft", tmp_path / "release"
    stand_in.write_text(f"#!/bin/sh\nwhile [ ! -e {release} ]; do sleep 0.02; done\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Namespace(f"{new_prefix()}-host") as namespace:
        running = Running(namespace.name)
        try:
            running.channel.send({"do": "hash", "text": "flush", "id": 1})
            assert running.ask(2, do="count")["marks"] == {}
            assert "reading" in running.ask(3, do="read", families=[4])
            assert running.ask(4, do="forget", marks=[], passing=[], datagrams=[]) == {"re": 4}
            assert not [message for message in running.heard if message.get("re") == 1]
            release.touch()
            assert running.until(lambda message: message.get("re") == 1) == {"re": 1}
        finally:
            release.touch()
            os.kill(running.pid, signal.SIGKILL)
            os.waitpid(running.pid, 0)


@pytest.mark.root
def test_it_ends_with_the_hub(running: Running) -> None:
    """Its channel is closed, and nobody is left to speak with."""
    running.channel.close()
    assert running.ended() == 0

"""Backends that die and come back while clients go on: checks, failover, and what is done then."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paraglider.control.client import Control
from paraglider.lab.balancer import Balancer
from paraglider.lab.topology import VIP, Topology, backend_address

pytestmark = pytest.mark.root

PATIENCE = 30.0  # seconds until something that must happen counts as not happening
CHECK = {"type": "tcp", "interval": 0.2, "timeout": 1, "rise": 2, "fall": 2}
NAMES = {"backend1", "backend2", "backend3"}
WAYS = pytest.mark.parametrize(
    ("forward", "family"), [("nat", 4), ("nat", 6), ("offload", 4), ("offload", 6)]
)


class Load:
    """Short connections of the client, one after the other for as long as it is wanted."""

    def __init__(self, net: Topology, family: int, output: Path) -> None:
        self._output = output
        command = [sys.executable, "-m", "paraglider.lab.client", "tcp", VIP[family], "80"]
        with output.open("wb") as file:
            self._process = net.client.popen([*command, "1000000"], stdout=file)

    def answers(self, since: int = 0) -> list[str]:
        """Who answered each try, or the error, from the try number ``since`` on."""
        found = []
        for line in self._output.read_text().split("\n")[:-1][since:]:
            result = json.loads(line)
            found.append(result.get("answer") or f"error: {result['error']}")
        return found

    def more(self, count: int) -> list[str]:
        """The next ``count`` answers."""
        since = len(self.answers())
        wait_until(lambda: len(self.answers(since)) > count, self._output.read_text)
        return self.answers(since)[1:]  # the first may have begun before

    def stop(self) -> None:
        """No more."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def wait_until(condition: Callable[[], object], told: Callable[[], str]) -> None:
    """Wait for ``condition``; fail with what ``told`` says when it does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.05)


def rows(running: Balancer, service: str) -> dict[str, dict[str, Any]]:
    """The backends of ``service`` by their names, as ``show`` has them."""
    socket = running.config.parent.parent / "control.sock"
    found = Control(str(socket)).get("backends", service=service)
    return {row["backend"]: row for row in found}


def await_state(running: Balancer, family: int, state: str, *numbers: int) -> None:
    """Wait until the backends ``numbers`` are in ``state``."""
    names = [backend_address(family, number) for number in numbers]

    def reached() -> bool:
        found = rows(running, f"web{family}")
        return all(found[name]["state"] == state for name in names)

    wait_until(reached, running.log)


def freeze(net: Topology, number: int, up: bool) -> None:
    """Pull the cable of a backend, or plug it in again."""
    net.switch.ip(f"link set backend{number} {'up' if up else 'down'}")


@pytest.fixture
def web(
    topology: Any, serve: Any, config: Any, service: Any, balancer: Any
) -> Callable[..., tuple[Topology, Balancer]]:
    """A function that has a service balanced over three backends."""

    def start(
        family: int, *options: str, top: dict[str, Any] | None = None, **changes: Any
    ) -> tuple[Topology, Balancer]:
        net = topology()
        serve(net, udp=())
        text = config(service(family, ports=80, **changes), **(top or {}))
        return net, balancer(net, text, *options)

    return start


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[[Topology, int], Load]]:
    """A function that has the client open connections until the test ends."""
    made: list[Load] = []

    def start(net: Topology, family: int) -> Load:
        made.append(Load(net, family, tmp_path / f"load{len(made)}"))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@WAYS
def test_out_and_back_under_load(web: Any, load: Any, forward: str, family: int) -> None:
    """A backend that dies is out: later connections see no error; and it returns."""
    net, running = web(family, forward=forward, check=CHECK)
    clients = load(net, family)
    assert set(clients.more(20)) == NAMES
    freeze(net, 2, up=False)
    await_state(running, family, "down", 2)
    assert set(clients.more(30)) == NAMES - {"backend2"}
    row = rows(running, f"web{family}")[backend_address(family, 2)]
    assert row["check"]["passed"] is False
    assert row["why"] != "configured"
    freeze(net, 2, up=True)
    await_state(running, family, "ready", 2)
    wait_until(lambda: "backend2" in clients.more(10), running.log)
    assert set(clients.more(30)) == NAMES


@pytest.mark.parametrize("family", [4, 6])
def test_failover(web: Any, load: Any, family: int) -> None:
    """With `-f` backends without a check of their own leave and return by failover's rounds."""
    rounds = {"check_cycle": 0.3, "timeout": 1, "rise": 1, "fall": 2, "discover": False}
    net, running = web(family, "-f", top={"failover": rounds})
    clients = load(net, family)
    assert set(clients.more(20)) == NAMES
    freeze(net, 1, up=False)
    await_state(running, family, "down", 1)
    assert set(clients.more(30)) == NAMES - {"backend1"}
    freeze(net, 1, up=True)
    await_state(running, family, "ready", 1)
    wait_until(lambda: "backend1" in clients.more(10), running.log)


@pytest.mark.parametrize(("forward", "family"), [("nat", 6), ("offload", 4)])
def test_all_down_rejects(web: Any, forward: str, family: int) -> None:
    """Where all are down, connections are refused at once, and served when one is back."""
    net, running = web(family, forward=forward, check=CHECK)
    for number in (1, 2, 3):
        freeze(net, number, up=False)
    await_state(running, family, "down", 1, 2, 3)
    assert all("Connection refused" in answer for answer in tries(net, family, 5))
    freeze(net, 3, up=True)
    await_state(running, family, "ready", 3)
    wait_until(lambda: tries(net, family, 1) == ["backend3"], running.log)


def tries(net: Topology, family: int, count: int) -> list[str]:
    """What so many connections came to."""
    command = [sys.executable, "-m", "paraglider.lab.client", "tcp", VIP[family], "80", str(count)]
    done = net.client.run(command, timeout=60)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return [result.get("answer") or f"error: {result['error']}" for result in results]

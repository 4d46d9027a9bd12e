"""Helpers of the tests of failing backends: clients in a loop, and the output of ``show``.

A ``Load`` opens connections one after the other and stores their results; ``Peer`` is a running
``peer.py``. Timeouts are generous: ``TIMEOUT`` seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waiting import TIMEOUT, wait_until

from paraglider.daemon.controller.processes import SOON
from paraglider.daemon.http.client import ControlClient
from paraglider.lab.balancer import LabBalancer, start_backend
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Topology, backend_address
from paraglider.netfilter.queue.reader import TICK

PEER = Path(__file__).parent / "peer.py"
TRY = [sys.executable, "-m", "paraglider.lab.client", "tcp"]
PATIENCE = 10.0  # seconds that a try may take
LONG = 40.0  # the same where none may fail: the time of five first segments
PAUSE = 0.01  # seconds between two tries of a load: others need the CPU too


class Load:
    """Short connections of the client, one after the other, until it is stopped."""

    def __init__(
        self,
        net: Topology,
        family: int,
        output: Path,
        port: int = 80,
        patience: float = PATIENCE,
    ) -> None:
        self._output = output
        limits = ["1000000", str(patience), str(PAUSE)]
        command = [*TRY, VIP[family], str(port), *limits]
        with output.open("wb") as file:
            self._process = net.client.popen(command, stdout=file)

    def answers(self, since: int = 0) -> list[str]:
        """The backend or the error of each try, from number ``since`` on."""
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


class Peer:
    """A running ``peer.py`` in ``client``, and its output so far."""

    def __init__(self, client: Namespace, output: Path, *arguments: object) -> None:
        self._output = output
        with output.open("wb") as file:
            self._process = client.popen(
                [sys.executable, str(PEER), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def begun(self) -> bool:
        """Wait until it has printed something; whether that was no error."""
        wait_until(self.lines, self._output.read_text)
        return "error" not in str(self.lines())

    def lines(self) -> list[Any]:
        """The lines of its output."""
        return [json.loads(line) for line in self._output.read_text().split("\n")[:-1]]

    def end(self) -> Any:
        """Give it its line of input; its last word."""
        self._process.communicate(b"\n", timeout=TIMEOUT)
        return self.lines()[-1]


def control(running: LabBalancer) -> ControlClient:
    """The control socket of a balancer."""
    return ControlClient(str(running.config.parent.parent / "control.sock"))


def rows(running: LabBalancer, family: int, name: str = "web") -> dict[str, dict[str, Any]]:
    """The backends of a service by their names, as ``show`` has them."""
    found = control(running).get("backends", service=f"{name}{family}")
    return {row["backend"]: row for row in found}


def await_state(
    running: LabBalancer, state: str, *numbers: int, names: tuple[str, ...] = ("web",)
) -> None:
    """Wait until the backends ``numbers`` are in ``state`` in both families, and all processes with
    flows have applied it.
    """

    def reached() -> bool:
        return all(
            rows(running, family, name).get(backend_address(family, number), {}).get("state")
            == state
            for family in (4, 6)
            for name in names
            for number in numbers
        )

    wait_until(reached, running.log)
    settle(running)


def await_gone(running: LabBalancer, number: int, names: tuple[str, ...] = ("web",)) -> None:
    """Wait until a removed backend takes no new flows in both families, and all processes have
    applied it.
    """

    def gone() -> bool:
        found = [
            rows(running, f, name).get(backend_address(f, number)) for f in (4, 6) for name in names
        ]
        return all(
            row is None or (row["state"], row["weight"]) == ("drain-down", 0) for row in found
        )

    wait_until(gone, running.log)
    settle(running)


def settle(running: LabBalancer) -> None:
    """Wait until all processes with flows have applied the state of ``show``."""
    # A change is answered when it has been taken over, one to what is already so too; if a worker
    # is kept waiting, after SOON.
    first = backend_address(4, 1)
    weight = rows(running, 4)[first]["weight"]

    def in_time() -> bool:
        began = time.monotonic()
        control(running).set_backend("web4", first, weight=weight)
        return time.monotonic() - began < SOON

    wait_until(in_time, running.log)


def await_counted(running: LabBalancer) -> None:
    """Wait until every worker has written its counters, which it does in every tick, after now."""
    since = time.monotonic()

    def written() -> bool:
        asked = time.monotonic()
        found = [row for row in control(running).get("workers") if row["role"] == "worker"]
        ages = [row["age"] for row in found]
        # One tick more: the last may be writing yet.
        return None not in ages and all(asked - age > since + TICK for age in ages)

    wait_until(written, running.log)


def freeze(net: Topology, number: int, up: bool) -> None:
    """Pull the cable of a backend, or plug it in again."""
    net.switch.ip(f"link set backend{number} {'up' if up else 'down'}")


def kill(net: Topology, number: int) -> None:
    """Kill a backend's servers; the host stays up."""
    for pid in net.backends[number - 1].pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def revive(
    net: Topology, number: int, http: Sequence[int] = (80,), udp: Sequence[int] = (5353,)
) -> None:
    """Restart the servers of a killed backend."""
    start_backend(net.backends[number - 1], f"backend{number}", http=http, udp=udp)


def tries(net: Topology, family: int, count: int, port: int = 80) -> list[str]:
    """The results of ``count`` connections, each of which has LONG seconds."""
    command = [*TRY, VIP[family], str(port), str(count), str(LONG)]
    done = net.client.run(command, timeout=5 * TIMEOUT)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return [result.get("answer") or f"error: {result['error']}" for result in results]

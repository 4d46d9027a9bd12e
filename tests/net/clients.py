"""Clients that run during a test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waiting import TIMEOUT, wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Topology

PEER = Path(__file__).parent / "peer.py"
HOLDER = Path(__file__).parent / "holder.py"


class Client:
    """A running ``peer.py`` in the client's namespace, and its output so far."""

    def __init__(self, client: Namespace, output: Path, *arguments: object) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = client.popen(
                [sys.executable, str(PEER), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def lines(self) -> list[str]:
        """The complete lines of its output."""
        return [line for line in self.output.read_text().splitlines(True) if line.endswith("\n")]

    def go_on(self) -> None:
        """Give it its line of input."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Its last line, after a line of input."""
        self.go_on()
        self.process.communicate(timeout=TIMEOUT)
        return self.lines()[-1].strip()


def hold(net: Topology, family: int, count: int, address: str = "", port: int = 80) -> Any:
    """A process in the client that holds ``count`` connections, to the VIP unless there is an
    ``address``, and checks them on request.
    """
    command = [sys.executable, str(HOLDER), address or VIP[family], str(port)]
    return net.client.popen([*command, str(count)], stdin=-1, stdout=-1)


def asked(holder: Any) -> list[str]:
    """A request over every held connection: the names of the backends, or the errors."""
    holder.stdin.write(b"ask\n")
    holder.stdin.flush()
    answers: list[str] = json.loads(holder.stdout.readline())
    return answers


def await_rounds(clients: Sequence[Client], running: LabBalancer, more: int = 2) -> None:
    """Wait until every client has made ``more`` rounds more; with two, one began after now."""
    wanted = [(client, len(client.lines()) + more) for client in clients]

    def made() -> bool:
        for client in clients:
            assert client.process.poll() is None, client.output.read_text() + running.log()
        return all(len(client.lines()) >= count for client, count in wanted)

    wait_until(made, lambda: f"{[client.lines()[-1:] for client in clients]}\n{running.log()}")

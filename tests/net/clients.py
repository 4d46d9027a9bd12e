"""Clients that stay at work in a test while other things happen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import VIP, Topology

PEER = Path(__file__).parent / "peer.py"
HOLDER = Path(__file__).parent / "holder.py"
PATIENCE = 30.0  # seconds until a client that is to end counts as one that hangs


class Client:
    """``peer.py`` at work in the client's namespace, and what it has printed so far."""

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
        """What it has printed, whole lines."""
        return [line for line in self.output.read_text().splitlines(True) if line.endswith("\n")]

    def go_on(self) -> None:
        """Give it its line of input."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Its last line, after a line of input."""
        self.go_on()
        self.process.communicate(timeout=PATIENCE)
        return self.lines()[-1].strip()


def hold(net: Topology, family: int, count: int) -> Any:
    """A process in the client that holds ``count`` connections and says on request how they are."""
    command = [sys.executable, str(HOLDER), VIP[family], "80"]
    return net.client.popen([*command, str(count)], stdin=-1, stdout=-1)


def asked(holder: Any) -> list[str]:
    """A request over every held connection: who answered, or the error."""
    holder.stdin.write(b"ask\n")
    holder.stdin.flush()
    answers: list[str] = json.loads(holder.stdout.readline())
    return answers

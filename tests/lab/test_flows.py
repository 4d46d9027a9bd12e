"""What an open flow's silence means, and which new connections belong to an event."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from paraglider.errors import PlatformError
from paraglider.lab import flows
from paraglider.lab.flows import NewConnections, OpenFlows, serve


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Pass the time."""
        self.now += seconds


class Program:
    """A namespace whose program answers ``reports``, one after the other, the last one for ever."""

    def __init__(self, *reports: dict[str, Any], first: bytes = b"listening\n") -> None:
        self.command: list[str] = []
        self.asked: list[bytes] = []
        self._reports = list(reports)
        self.stdin = self
        self.stdout = io.BytesIO(first) if not reports else self

    def popen(self, command: list[str], **_: Any) -> Program:
        """As that of ``Namespace``."""
        self.command = command
        return self

    def write(self, line: bytes) -> None:
        """A line to it."""
        self.asked.append(line)

    def flush(self) -> None:
        """It has the line."""

    def readline(self) -> bytes:
        """Its answer."""
        report = self._reports.pop(0) if len(self._reports) > 1 else self._reports[0]
        return json.dumps(report).encode() + b"\n" if report else b""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the module."""
    made = Clock()
    monkeypatch.setattr(flows, "time", made)
    return made


def opened(program: Program, **options: Any) -> OpenFlows:
    """Flows of a client."""
    client: Any = program
    return OpenFlows(client, 9000, ["203.0.113.11"], 3, 1, **options)


def report(*silent: float, errors: int = 0, **new: float) -> dict[str, Any]:
    """What the client's program says."""
    return {"errors": ["closed"] * errors, "silent": list(silent), **new}


def test_the_command() -> None:
    """Its arguments are those of the program."""
    program = Program(report())
    opened(program, protocol="udp", rate=20)
    assert program.command[2:] == [
        "paraglider.lab.lasting", "udp", "9000", "3", "1", "20", "203.0.113.11",
    ]  # fmt: skip


def test_flows_that_go_on(clock: Clock) -> None:
    """It ends as soon as all have got something that was not under way."""
    program = Program(report(0.2, 0.1), report(0.1, 0.5), report(0.1, 0.15))
    assert opened(program).broken(10) == 0
    assert len(program.asked) == 5  # at 0.5 s the last report's are younger than 0.2 s
    assert clock.now == pytest.approx(100.5)


def test_flows_that_broke_or_hang(clock: Clock) -> None:
    """Those that hang count when the patience is over."""
    program = Program(report(0.1, 50, errors=2))
    assert opened(program).broken(3) == 3
    assert clock.now == pytest.approx(103.1)


def test_new_connections_of_an_event(clock: Clock) -> None:
    """Those that began before the end are waited for."""
    program = Program(
        report(),
        report(opened=1, failed=0, slowest=0.1, waiting=0.5),
        report(opened=1, failed=0, slowest=0.1, waiting=0.6),
        report(opened=9, failed=2, slowest=1.5, waiting=0.1),
    )
    client = opened(program)
    client.count_from_now()
    assert client.new_connections(10) == NewConnections(9, 2, 1.5)
    assert program.asked == [b"begin\n", b"\n", b"\n", b"\n"]


def test_a_new_connection_that_does_not_end(clock: Clock) -> None:
    """It is waited for as long as the caller says."""
    program = Program(report(opened=5, failed=0, slowest=0.1, waiting=60))
    assert opened(program).new_connections(2) == NewConnections(5, 0, 0.1)
    assert clock.now == pytest.approx(102.1)


def test_a_client_that_ended() -> None:
    """It says nothing, which is an error."""
    program = Program({})
    with pytest.raises(PlatformError, match="their program ended"):
        opened(program).count_from_now()


def test_a_server_that_does_not_listen() -> None:
    """Servers that listen are awaited; one that ends is an error."""
    serve([Program() for _ in "12"], 9000)  # type: ignore[misc]
    ill: Any = Program(first=b"")
    with pytest.raises(PlatformError, match="a server of port 9000 ended"):
        serve([ill], 9000)

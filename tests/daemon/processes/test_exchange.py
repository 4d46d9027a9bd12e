"""Messages between the supervisor and its processes, of which none ends anything but its sender."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from waiting import TIMEOUT

from paraglider.config.model import Config
from paraglider.daemon.ipc import Frame, IpcEndpoint, encode
from paraglider.daemon.messages import FROM_ROLE, TO_ROLE, KilledFlows, SuspendPolicies
from paraglider.daemon.processes import exchange
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.exchange import Exchange
from paraglider.daemon.processes.faults import Faults
from paraglider.daemon.processes.inbox import SLICE, Inbox
from paraglider.daemon.processes.loop import Loop
from paraglider.daemon.processes.spec import READY
from paraglider.daemon.workers.worker import WorkerSpec

CONFIG = Config.model_construct(services=())
BAD = 999  # a number that the controller fails at
OTHER = 777  # a number that another worker sends


def echo(spec: WorkerSpec, report: int) -> int:
    """A worker that reports whether it got a message with its name."""
    os.write(report, READY)
    assert spec.endpoint is not None
    while True:
        select.select([spec.endpoint], [], [])
        for frame in spec.endpoint.receive():
            assert frame.message == SuspendPolicies(services=(f"worker {spec.index}",))
            spec.endpoint.send(KilledFlows(killed=spec.index))


def test_messages_go_both_ways(supervise: Any) -> None:
    """Each worker gets its messages, and the supervisor those of each; a replaced one too."""
    running = supervise(echo)
    running.await_events("received", 2)
    os.kill(running.workers(1)[0], signal.SIGKILL)
    running.await_events("received", 3)
    lines = sorted(running.events("received"), key=lambda line: "worker=1" in line)
    for line, worker in zip(lines, (0, 1, 1), strict=True):
        assert f"worker={worker}" in line
        assert f"number={worker}" in line
    running.end(signal.SIGKILL)


@pytest.mark.parametrize("garbage", [b"\xff" * 9, b"\0\0\0\2\0\0\0\0\0[]"])
def test_a_worker_that_sends_an_invalid_message_is_replaced(
    supervise: Any, tmp_path: Path, garbage: bytes
) -> None:
    """The sender is killed; its successor has a new endpoint."""

    def life(spec: WorkerSpec, report: int) -> int:
        assert spec.endpoint is not None
        os.write(report, READY)
        first = tmp_path / f"started{spec.index}"
        if spec.index == 0 and not first.exists():
            first.touch()
            os.write(spec.endpoint.fileno(), garbage)
        signal.sigwait((signal.SIGTERM,))
        return 0

    running = supervise(life)
    running.await_events("worker ready", 3)
    assert len(running.workers(1)) == 1
    (line,) = running.events("invalid message from the worker, killed")
    assert "worker=0" in line
    assert "cause=SIGKILL" in running.events("worker died")[0]
    running.end()
    assert running.status == 0


def test_a_message_whose_handler_fails_ends_nothing(supervise: Any) -> None:
    """The exception is logged once with its traceback, and later messages are handled."""

    def life(spec: WorkerSpec, report: int) -> int:
        assert spec.endpoint is not None
        os.write(report, READY)
        for number in (BAD, BAD, 7):
            spec.endpoint.send(KilledFlows(killed=number))
        signal.sigwait((signal.SIGTERM,))
        return 0

    running = supervise(life)
    running.await_events("received", 2)
    assert len(running.events("internal error: a message from the worker")) == 1
    assert "RuntimeError" in running.log()
    assert [len(running.workers(index)) for index in range(2)] == [1, 1]
    running.end()
    assert running.status == 0


def test_a_worker_that_never_stops_sending_delays_no_other(supervise: Any, tmp_path: Path) -> None:
    """The others are served and replaced meanwhile, and the end comes at once."""

    def life(spec: WorkerSpec, report: int) -> int:
        assert spec.endpoint is not None
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.write(report, READY)
        if spec.index == 1:
            spec.endpoint.send(KilledFlows(killed=OTHER))
            signal.pause()
        os.set_blocking(spec.endpoint.fileno(), True)
        again = encode(KilledFlows(killed=1))
        while True:
            spec.endpoint.send(again)

    running = supervise(life)
    running.await_events("worker: too many messages, throttled")
    os.kill(running.workers(1)[0], signal.SIGKILL)
    running.wait_until(lambda: running.log().count(f"number={OTHER}") == 2)
    assert [len(running.workers(index)) for index in range(2)] == [1, 2]
    assert running.end() < TIMEOUT
    assert running.status == 0
    assert running.nobody_left()


class Watched:
    """A loop that records what is watched, and whether for writing too."""

    def __init__(self) -> None:
        self.writing: dict[Any, bool] = {}
        self.ready: dict[Any, Callable[[], object]] = {}

    def watch(self, what: Any, ready: Callable[[], object], *, writing: bool = False) -> None:
        """See ``Loop``."""
        self.writing[what], self.ready[what] = writing, ready

    def forget(self, what: Any) -> None:
        """See ``Loop``."""
        self.writing.pop(what, None)


class Side:
    """An exchange with one process, whose end is ``theirs``; its messages, and the reason of its
    kill.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = Watched()
        self.received: list[int] = []
        self.killed: list[int] = []
        self.then: Callable[[], object] = lambda: None
        self.exchange = Exchange(cast(Loop, self.loop), self, Faults())
        monkeypatch.setattr(exchange, "kill", lambda child, _: self.killed.append(child.pid))
        ours, self.theirs = IpcEndpoint.pair(FROM_ROLE["worker"], TO_ROLE["worker"])
        self.child = Child(WorkerSpec(0, 0, CONFIG, 1, 1), pid=7, inbox=Inbox(lambda: 100.0))
        self.exchange.open(self.child, ours)
        self.ours = ours

    def on_message(self, _child: Child, frame: Frame) -> None:
        """See ``Receiver``."""
        assert isinstance(frame.message, KilledFlows)
        self.received.append(frame.message.killed)
        self.then()

    def send(self, *numbers: int) -> None:
        """The process sends messages, and the loop reports them."""
        for number in numbers:
            self.theirs.send(KilledFlows(killed=number))
        self.loop.ready[self.ours]()


@pytest.fixture
def side(monkeypatch: pytest.MonkeyPatch) -> Iterator[Side]:
    """A process with an open endpoint."""
    side = Side(monkeypatch)
    yield side
    side.ours.close()
    side.theirs.close()


def test_nothing_is_sent_to_a_missing_process(side: Side) -> None:
    """Before its start and after its end this is no error."""
    side.exchange.close(side.child)
    side.exchange.close(side.child)
    side.exchange.send(side.child, SuspendPolicies(services=()))
    assert (side.loop.writing, side.killed) == ({}, [])


def test_what_finds_no_room_is_sent_later(side: Side) -> None:
    """The loop watches for room until all is sent, and for messages all the time."""
    message = SuspendPolicies(services=("x" * 4000,) * 50)
    assert side.loop.writing == {side.ours: False}
    while not side.child.pending:
        side.exchange.send(side.child, message)
    assert side.loop.writing == {side.ours: True}
    while side.child.pending:
        side.theirs.receive()
        side.loop.ready[side.ours]()
    assert side.loop.writing == {side.ours: False}


def test_one_that_is_ended_by_its_message_is_heard_no_more(side: Side) -> None:
    """Its later messages are dropped."""
    side.then = lambda: side.exchange.close(side.child)
    side.send(1, 2, 3)
    assert side.received == [1]
    assert side.child.endpoint is None


def test_one_that_has_ended_is_not_killed(side: Side) -> None:
    """Its exit is handled elsewhere; its earlier messages are handled."""
    side.theirs.send(KilledFlows(killed=5))
    side.theirs.close()
    while side.child.endpoint is not None:
        side.loop.ready[side.ours]()
    assert (side.received, side.killed) == ([5], [])
    assert side.loop.writing == {}


@pytest.mark.parametrize("garbage", [b"\xff" * 9, b"\0\0\0\2\0\0\0\0\0[]"])
def test_an_invalid_message_kills_its_sender(side: Side, garbage: bytes) -> None:
    """The log has the error without the content."""
    os.write(side.theirs.fileno(), garbage)
    with structlog.testing.capture_logs() as logged:
        side.loop.ready[side.ours]()
    assert (side.received, side.killed, side.child.endpoint) == ([], [7], None)
    assert [line["event"] for line in logged] == ["invalid message from the worker, killed"]


def test_one_that_does_not_read_is_killed(side: Side) -> None:
    """Its backlog has an end."""
    body = encode(SuspendPolicies(services=("x" * 4000,) * 4000))
    with structlog.testing.capture_logs() as logged:
        while side.child.endpoint is not None:
            side.exchange.send(side.child, body)
    assert side.killed == [7]
    assert [line["event"] for line in logged] == ["worker: cannot be reached, killed"]


def test_one_that_sends_too_much_is_not_received_from_for_a_while(side: Side) -> None:
    """Nor does it wake the loop; its messages are handled after the pause."""
    now = [100.0]
    side.child.inbox = Inbox(lambda: now[0])

    def slowly() -> None:
        now[0] += 2 * SLICE

    side.then = slowly
    side.send(1, 2)
    assert side.received == [1]
    assert side.loop.writing == {}
    side.exchange.resume(side.child)
    assert side.received == [1, 2]
    assert side.loop.writing == {side.ours: False}

"""The http process: its sockets, clients that it refuses, its life without rights."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from stand_ins import ForkedProcess, signalled_while_closing
from waiting import TIMEOUT, wait_until

from paraglider.daemon.control.connections import ControlConnections
from paraglider.daemon.control.listening import ControlSocket
from paraglider.daemon.http import process
from paraglider.daemon.http.client import ControlClient
from paraglider.daemon.http.process import HttpSpec
from paraglider.daemon.ipc import Frame, IpcEndpoint, Kind
from paraglider.daemon.messages import Result, ShowRequest
from paraglider.daemon.processes.loop import Loop
from paraglider.daemon.web.page import StatsPage

NOBODY = 65534


def test_in_other_processes_its_sockets_are_closed() -> None:
    """That of the control socket, and that of the page where there is one."""
    listening, stats = socket.socket(), socket.socket()
    control = ControlConnections(listening, 0)
    page = StatsPage(stats, (), False, {})
    HttpSpec(0, control, NOBODY, NOBODY, "/", page).release()
    assert (listening.fileno(), stats.fileno(), control.handover.taking.fileno()) == (-1, -1, -1)
    alone = socket.socket()
    HttpSpec(0, ControlConnections(alone, 0), NOBODY, NOBODY, "/").release()
    assert alone.fileno() == -1


def test_it_needs_an_endpoint() -> None:
    """Without an endpoint the process does not start."""
    with closing(ControlConnections(socket.socket(), 0)) as control:
        serving = process._serve(HttpSpec(0, control, NOBODY, NOBODY, "/"), -1, 0)
        with pytest.raises(ValueError, match="endpoint"):
            asyncio.run(serving)


class Running(ForkedProcess):
    """An http process whose control socket is in ``directory``, and the supervisor's end."""

    def __init__(self, directory: Path, loop: Loop) -> None:
        self.socket = ControlSocket(str(directory / "control"))
        self.control = ControlConnections(self.socket.listening, 0)

        def life(endpoint: IpcEndpoint, report: int, parent: int) -> int:
            jail = directory / "empty"
            jail.mkdir()
            spec = HttpSpec(0, self.control, NOBODY, NOBODY, str(jail), endpoint=endpoint)
            return process.run(spec, report, parent)

        super().__init__("http", life)
        self.control.watch(loop)
        loop.watch(self.endpoint, self._receive)
        self._loop = loop
        self._frames: list[Frame] = []

    def _receive(self) -> None:
        self._frames += self.endpoint.receive()

    def received(self) -> Frame:
        """The next frame that it sends; connections are handed over meanwhile."""
        self.wait_until(lambda: self._frames)
        return self._frames.pop(0)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Do the supervisor's work until ``condition`` holds."""

        def turned() -> object:
            self._loop.wait(min(0.1, self.control.poll(time.monotonic())))
            return condition()

        wait_until(turned)

    def forget(self) -> None:
        """The supervisor is gone."""
        self._loop.forget(self.endpoint)
        self.endpoint.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """One that serves."""
    with Loop([]) as loop:
        it = Running(tmp_path, loop)
        yield it
        it.forget()
        it.close()
        it.control.close()
        it.socket.close()


@pytest.mark.root
def test_its_life(running: Running) -> None:
    """It runs as nobody without capabilities, passes requests on, answers, and exits on request."""
    status = Path(f"/proc/{running.pid}/status").read_text()
    fields = {line.split()[0]: line.split()[1:] for line in status.splitlines() if line.split()}
    assert fields["Uid:"] == [str(NOBODY)] * 4
    assert {fields[f"Cap{name}:"][0] for name in ("Prm", "Eff", "Bnd", "Inh")} == {"0" * 16}
    answers: list[Any] = []
    client = ControlClient(running.socket.path.as_posix())
    asking = Thread(target=lambda: answers.append(client.get("health")))
    asking.start()
    request = running.received()
    assert (request.message, request.kind) == (
        ShowRequest(listener="control", connection=1, view="health"),
        Kind.REQUEST,
    )
    assert isinstance(request.message, ShowRequest)
    assert running.control.requested(request.message)
    running.endpoint.send(Result(value={"status": "ok"}), Kind.ANSWER, request.number)
    asking.join(TIMEOUT)
    assert answers == [{"status": "ok"}]
    os.kill(running.pid, signal.SIGTERM)
    assert running.ended() == 0


@pytest.mark.root
def test_signals_while_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are no fault: systemd's and that of the parent's death may come one after the other."""
    signalled_while_closing(monkeypatch)
    with Loop([]) as loop:
        it = Running(tmp_path, loop)
        os.kill(it.pid, signal.SIGTERM)
        assert it.ended() == 0
        it.forget()
        it.control.close()
        it.socket.close()
    assert capfd.readouterr().err == ""


@pytest.mark.root
def test_another_user_is_refused(running: Running, connect_as: Any) -> None:
    """The supervisor hands the connection over without a number; the process answers 403."""
    running.control._owner = -1
    client = connect_as(running.socket.path, NOBODY)
    client.setblocking(False)
    answer = b""

    def answered() -> bool:
        nonlocal answer
        with suppress(BlockingIOError):
            answer = client.recv(1000)
        return bool(answer)

    running.wait_until(answered)
    assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.root
def test_it_ends_with_the_supervisor(running: Running) -> None:
    """The process exits when the supervisor is gone."""
    running.forget()
    assert running.ended() == 0

"""The http process: its sockets, who may use the control socket, its life without rights."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from paraglider.daemon.http import process
from paraglider.daemon.http.client import ControlClient
from paraglider.daemon.http.listening import ControlSocket
from paraglider.daemon.http.process import HttpSpec
from paraglider.daemon.ipc import Frame, IpcEndpoint, Kind
from paraglider.daemon.messages import FROM_ROLE, TO_ROLE, Result, ShowRequest
from paraglider.daemon.processes.spec import READY
from paraglider.daemon.web.page import StatsPage

NOBODY = 65534


def test_in_other_processes_its_sockets_are_closed() -> None:
    """That of the control socket, and that of the page where there is one."""
    control, stats = socket.socket(), socket.socket()
    page = StatsPage(stats, (), False, {})
    HttpSpec(0, control, 0, NOBODY, NOBODY, "/", page).release()
    assert (control.fileno(), stats.fileno()) == (-1, -1)
    alone = socket.socket()
    HttpSpec(0, alone, 0, NOBODY, NOBODY, "/").release()
    assert alone.fileno() == -1


def test_it_needs_an_endpoint() -> None:
    """Without one it would answer nobody, so it does not begin."""
    with socket.socket() as listening:
        serving = process._serve(HttpSpec(0, listening, 0, NOBODY, NOBODY, "/"), -1, 0)
        with pytest.raises(ValueError, match="endpoint"):
            asyncio.run(serving)


class Warnings:
    """The warnings that were logged."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def warning(self, event: str, **details: Any) -> None:
        """See ``structlog``."""
        self.lines.append({"event": event, **details})


@pytest.mark.root
@pytest.mark.parametrize(
    ("uid", "admitted"), [(0, True), (1234, True), (1235, False), (NOBODY, False)]
)
def test_who_may_use_the_control_socket(uid: int, admitted: bool) -> None:
    """Root and the socket's owner; the kernel says who has connected, and the log who else did."""
    os.seteuid(uid)
    try:
        ours, theirs = socket.socketpair()
    finally:
        os.seteuid(0)
    said = Warnings()
    with ours, theirs:
        refused = process._only(1234, said)(ours)
    assert (refused is None) is admitted
    assert [line["uid"] for line in said.lines] == ([] if admitted else [uid])
    if refused is not None:
        assert refused[0] == 403


class Running:
    """An http process that listens in ``directory``, and the supervisor's end."""

    def __init__(self, directory: Path) -> None:
        self.control = ControlSocket(str(directory / "control"))
        self.endpoint, theirs = IpcEndpoint.pair(FROM_ROLE["http"], TO_ROLE["http"])
        reading, writing = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                os.close(reading)
                self.endpoint.close()
                jail = directory / "empty"
                jail.mkdir()
                spec = HttpSpec(
                    *(0, self.control.listening, 0, NOBODY, NOBODY, str(jail)), endpoint=theirs
                )
                status = process.run(spec, writing, parent)
            finally:
                os._exit(status)
        os.close(writing)
        theirs.close()
        with os.fdopen(reading, "rb") as report:
            assert report.read() == READY

    def received(self) -> Frame:
        """The next frame that it sends."""
        while not (found := self.endpoint.receive()):
            assert select.select([self.endpoint], [], [], 20)[0]
        return found[0]

    def ended(self) -> int:
        """The exit code."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """One that serves."""
    it = Running(tmp_path)
    yield it
    if it.pid:
        os.kill(it.pid, signal.SIGKILL)
        os.waitpid(it.pid, 0)
    it.endpoint.close()
    it.control.close()


@pytest.mark.root
def test_its_life(running: Running) -> None:
    """It is nobody, has no capability, passes requests on and answers, and ends when asked."""
    status = Path(f"/proc/{running.pid}/status").read_text()
    fields = {line.split()[0]: line.split()[1:] for line in status.splitlines() if line.split()}
    assert fields["Uid:"] == [str(NOBODY)] * 4
    assert {fields[f"Cap{name}:"][0] for name in ("Prm", "Eff", "Bnd", "Inh")} == {"0" * 16}
    answers: list[Any] = []
    client = ControlClient(running.control.path.as_posix())
    asking = Thread(target=lambda: answers.append(client.get("health")))
    asking.start()
    request = running.received()
    assert (request.message, request.kind) == (
        ShowRequest(listener="control", view="health"),
        Kind.REQUEST,
    )
    running.endpoint.send(Result(value={"status": "ok"}), Kind.ANSWER, request.number)
    asking.join(20)
    assert answers == [{"status": "ok"}]
    os.kill(running.pid, signal.SIGTERM)
    assert running.ended() == 0


@pytest.mark.root
def test_it_ends_with_the_supervisor(running: Running) -> None:
    """Without it nobody answers."""
    running.endpoint.close()
    assert running.ended() == 0

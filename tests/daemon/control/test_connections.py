"""The supervisor's end of the control socket, with an http process that was taken over.

It has every connection that clients make, and may send what it likes: it is believed only what a
client has asked for, once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paraglider.daemon.control import connections
from paraglider.daemon.control.connections import LIFETIME, MOST, ControlConnections
from paraglider.daemon.control.handover import HandedConnections
from paraglider.daemon.control.listening import ControlSocket
from paraglider.daemon.messages import (
    AnnounceRequest,
    ClientRequest,
    FlowsRequest,
    KillRequest,
    ReloadRequest,
    SetRequest,
    ShowRequest,
)
from paraglider.daemon.processes.loop import Loop

NOBODY = 65534
SET = b'POST /v1/backends/web/b HTTP/1.1\r\nContent-Length: 18\r\n\r\n{"state": "drain"}'
SHOW = b"GET /v1/health HTTP/1.1\r\nHost: a\r\n\r\n"


class Scene:
    """The control socket, its supervisor, and what the http process was handed."""

    def __init__(self, directory: Path, loop: Loop) -> None:
        self.now = 1000.0
        self.socket = ControlSocket(str(directory / "control"))
        self.control = ControlConnections(self.socket.listening, 4321, lambda: self.now)
        self.loop = loop
        self.control.watch(loop)
        self.handed = HandedConnections(self.control.handover.taking)
        self.taken: list[tuple[int, socket.socket]] = []
        self.clients: list[socket.socket] = []

    def connect(self, data: bytes = b"") -> socket.socket:
        """A client that has sent ``data``."""
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.socket.path))
        client.sendall(data)
        self.clients.append(client)
        return client

    def pump(self) -> None:
        """Do all that is due, and hand over."""
        idle = 0
        while idle < 2:
            self.loop.wait(0)
            idle = 0 if self._moved() else idle + 1

    def _moved(self) -> bool:
        before = len(self.taken), len(self.control._arrived)
        self.control.poll(self.now)
        while True:
            try:
                connection, _ = self.handed.accept()
            except BlockingIOError:
                break
            self.taken.append((self.handed.number(connection), connection))
        return before != (len(self.taken), len(self.control._arrived))

    def ask(self, data: bytes) -> int:
        """A client has sent ``data``; returns the number of its connection."""
        self.connect(data)
        self.pump()
        return self.taken[-1][0]

    def close(self) -> None:
        """The end."""
        self.control.close()
        self.socket.close()
        for _, connection in self.taken:
            connection.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """One of its own."""
    with Loop([]) as loop:
        made = Scene(tmp_path, loop)
        yield made
        made.close()


def test_a_request_is_believed_once(scene: Scene) -> None:
    """The process can read it, and answer it."""
    number = scene.ask(SET)
    assert scene.taken[0][1].recv(1000) == SET
    wanted = SetRequest(
        listener="control", connection=number, service="web", backend="b", state="drain"
    )
    assert scene.control.requested(wanted)
    assert not scene.control.requested(wanted)


@pytest.mark.parametrize(
    "forge",
    [
        lambda n: KillRequest(listener="control", connection=n, all=True),
        lambda n: ReloadRequest(listener="control", connection=n, force=True),
        lambda n: FlowsRequest(listener="control", connection=n),
        lambda n: ShowRequest(listener="control", connection=n, view="status"),
        lambda n: SetRequest(
            listener="control", connection=n, service="web", backend="b", state="maint"
        ),
        lambda n: SetRequest(
            listener="control", connection=n, service="web", backend="c", state="drain"
        ),
        lambda n: SetRequest(
            listener="control", connection=n + 1, service="web", backend="b", state="drain"
        ),
        lambda _: SetRequest(listener="control", service="web", backend="b", state="drain"),
    ],
)
def test_what_no_client_asked_for_is_not_believed(
    scene: Scene, forge: Callable[[int], ClientRequest]
) -> None:
    """Whether clients are connected or not, and whatever they ask for."""
    assert not scene.control.requested(forge(1))
    assert not scene.control.requested(forge(scene.ask(SHOW)))
    assert not scene.control.requested(forge(scene.ask(SET)))


ANNOUNCE = b"GET /v1/announce HTTP/1.0\r\n\r\n"


@pytest.mark.root
@pytest.mark.parametrize(
    ("request_", "served"),
    [
        (ANNOUNCE, True),
        (SHOW, False),
        (SET, False),
        (b"GET /v1/announce", None),
        (b"x\r\n\r\n", False),
    ],
)
def test_the_user_that_announces(
    scene: Scene, connect_as: Any, request_: bytes, served: bool | None
) -> None:
    """May ask what to announce, and nothing else; root may ask that, too."""
    scene.control._announcer = NOBODY
    scene.socket.path.chmod(0o666)
    scene.socket.path.parent.chmod(0o755)
    client = connect_as(scene.socket.path, NOBODY)
    client.sendall(request_)
    scene.clients.append(client)
    scene.pump()
    if served is None:
        assert scene.taken == []
        return
    ((number, _),) = scene.taken
    assert bool(number) is served
    wanted = AnnounceRequest(listener="control", connection=number)
    assert scene.control.requested(wanted) is served
    shown = ShowRequest(listener="control", connection=number, view="health")
    assert not scene.control.requested(shown)
    own = AnnounceRequest(listener="control", connection=scene.ask(ANNOUNCE))
    assert scene.control.requested(own)


def test_nobody_is_accepted_after_the_end(scene: Scene) -> None:
    """Whoever announces VIPs sees then that the daemon is gone, though the file is there."""
    scene.control.stop()
    scene.control.stop()
    with pytest.raises(ConnectionRefusedError):
        scene.connect()
    scene.pump()


def test_a_request_expires(scene: Scene) -> None:
    """One that the process kept back is over when its client has given up."""
    number = scene.ask(SHOW)
    scene.now += LIFETIME
    request = ShowRequest(listener="control", connection=number, view="health")
    assert not scene.control.requested(request)


def test_old_requests_are_forgotten(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many the process keeps back, the newest are held."""
    monkeypatch.setattr(connections, "MOST_REQUESTS", 3)
    numbers = [scene.ask(SHOW) for _ in range(5)]
    made = [
        scene.control.requested(ShowRequest(listener="control", connection=number, view="health"))
        for number in numbers
    ]
    assert made == [False, False, True, True, True]


def test_a_request_in_pieces(scene: Scene) -> None:
    """It is handed over when it is whole; until then the supervisor only looks now and then."""
    client = scene.connect()
    scene.pump()
    for start in range(0, len(SET), 10):
        assert scene.taken == []
        client.sendall(SET[start : start + 10])
        scene.pump()
        scene.now += 1.0
        scene.pump()
    ((number, connection),) = scene.taken
    assert connection.recv(1000) == SET
    assert number == 1


def test_an_incomplete_request_does_not_spin(scene: Scene) -> None:
    """The socket stays readable, and the loop is not woken by it again and again."""
    scene.connect(SET[:20])
    scene.pump()
    assert 0 < scene.control.poll(scene.now) <= 0.1
    assert len(scene.control._arrived) == 1
    scene.now += LIFETIME
    scene.pump()
    assert scene.control._arrived == []
    assert scene.taken == []
    with pytest.raises(ConnectionResetError):  # closed with bytes that nobody has read
        scene.clients[0].recv(1)


def test_a_client_that_went_is_dropped(scene: Scene) -> None:
    """It had not asked for anything."""
    scene.connect().close()
    scene.pump()
    assert (scene.taken, scene.control._arrived) == ([], [])


@pytest.mark.parametrize("leave", [socket.socket.close, lambda end: end.shutdown(socket.SHUT_WR)])
def test_a_client_that_went_amid_its_request_is_dropped(
    scene: Scene, leave: Callable[[socket.socket], object]
) -> None:
    """Its place is free with the next reading, though its bytes are there still."""
    client = scene.connect(SET[:20])
    scene.pump()
    assert len(scene.control._arrived) == 1
    leave(client)
    scene.now += 1.0
    scene.pump()
    assert (scene.taken, scene.control._arrived) == ([], [])


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b'POST /v1/flows/kill HTTP/1.1\r\nContent-Length: 12\r\n\r\n{"all": "y"}',
        b"GET /" + b"x" * 140_000,
    ],
)
def test_what_is_no_request_is_answered_by_http(scene: Scene, data: bytes) -> None:
    """The answer names the error; the connection's number allows no change."""
    number = scene.ask(data)
    assert number == 1
    assert not scene.control.requested(ReloadRequest(listener="control", connection=number))


def test_only_so_many_at_a_time(scene: Scene) -> None:
    """The one that has been incomplete for longest is closed for the next, which is answered."""
    for _ in range(MOST):
        scene.connect(SET[:20])
        scene.pump()
    assert len(scene.control._arrived) == MOST - 1
    with pytest.raises(ConnectionResetError):
        scene.clients[0].recv(1)
    assert scene.ask(SHOW) == MOST + 1
    assert len(scene.control._arrived) == MOST - 1


def test_none_is_closed_that_waits_for_the_http_process(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Complete requests wait with as many connections as there may be; the next is accepted when
    they were handed over.
    """
    with monkeypatch.context() as patched:
        patched.setattr(scene.control.handover, "give", lambda *_: False)
        for _ in range(MOST + 1):
            scene.connect(SHOW)
            scene.pump()
        assert len(scene.control._arrived) == MOST
    for _ in range(4):
        scene.now += 1.0
        scene.pump()
    assert (len(scene.control._arrived), len(scene.taken)) == (0, MOST + 1)


def test_without_an_http_process_connections_wait(scene: Scene) -> None:
    """Its successor finds them; where one has shut its end down, the successor has a new one."""
    scene.connect(SHOW)
    scene.loop.wait(0)
    assert scene.control._arrived == []
    scene.control.handover.taking.shutdown(socket.SHUT_RDWR)
    scene.connect(SHOW)
    scene.loop.wait(0)
    scene.handed = HandedConnections(scene.control.handover.taking)
    assert scene.ask(SHOW) == 3


@pytest.mark.root
@pytest.mark.parametrize(("uid", "admitted"), [(0, True), (4321, True), (NOBODY, False)])
def test_users_of_the_control_socket(
    scene: Scene, connect_as: Any, uid: int, admitted: bool
) -> None:
    """Root and the owner; another user's connection has no number, so http refuses it."""
    client = connect_as(scene.socket.path, uid)
    client.sendall(SHOW)
    scene.pump()
    ((number, _),) = scene.taken
    assert (number > 0) is admitted
    request = ShowRequest(listener="control", connection=number, view="health")
    assert scene.control.requested(request) is admitted

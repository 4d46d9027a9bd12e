"""Tests of ``paraglider.announcer.stream``: a daemon that dies, hangs, restarts or is none."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import HEAD, WELL, FakeDaemon

from paraglider.announcer.stream import PAUSE, SILENT, StateStream, StreamAnswer
from paraglider.daemon.processes.loop import Loop

VIPS = {"203.0.113.11": WELL}


class Scene:
    """A daemon, and what a stream told; the clock stands still."""

    def __init__(self, directory: Path, loop: Loop) -> None:
        self.daemon = FakeDaemon(directory / "control.sock")
        self.loop = loop
        self.now = 100.0
        self.lines: list[dict[str, Any]] = []
        self.reasons: list[str] = []
        self.stream = StateStream(str(self.daemon.path), self, lambda: self.now)
        self.stream.attach(loop)

    def told(self, line: dict[str, Any]) -> None:
        """See ``Listener``."""
        self.lines.append(line)

    def gone(self, why: str) -> None:
        """See ``Listener``."""
        self.reasons.append(why)

    def poll(self, after: float = 0.0) -> float:
        """The stream goes on, so much later."""
        self.now += after
        for _ in range(3):
            self.loop.wait(0)
        return self.stream.poll(self.now)

    def connected(self) -> None:
        """The daemon has told something."""
        self.poll()
        self.daemon.accept()
        self.daemon.tell(VIPS, loads=1)
        self.poll()
        assert self.lines.pop() == {"loads": 1, "vips": VIPS}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """One whose daemon listens."""
    with Loop(()) as loop:
        it = Scene(tmp_path, loop)
        yield it
        it.stream.close()
        it.daemon.die()


def test_it_is_told_line_by_line(scene: Scene) -> None:
    """However they come."""
    assert scene.poll() == SILENT
    assert scene.daemon.accept() == "GET /v1/announce HTTP/1.0"
    assert scene.daemon.end is not None
    scene.daemon.end.sendall(b'{"loads": 1, "vips"')
    scene.poll()
    assert scene.lines == []
    scene.daemon.end.sendall(b': {}}\n{}\n{"vips')
    scene.poll(1.0)
    assert scene.lines == [{"loads": 1, "vips": {}}, {}]
    assert scene.poll() == SILENT
    assert scene.reasons == []


def test_a_daemon_that_dies_is_gone_at_once(scene: Scene) -> None:
    """Nobody listens at its socket then, though the socket is there; it is looked for often."""
    scene.connected()
    scene.daemon.die()
    assert scene.poll() == pytest.approx(PAUSE)
    assert scene.reasons == [f"no paraglider answers at {scene.daemon.path}"]
    scene.poll(PAUSE)
    scene.daemon.listen()
    scene.poll(PAUSE)
    scene.daemon.accept()
    scene.daemon.tell(VIPS, loads=2)
    scene.poll()
    assert scene.lines == [{"loads": 2, "vips": VIPS}]
    assert len(scene.reasons) == 2


def test_an_http_process_that_is_replaced_is_not_gone(scene: Scene) -> None:
    """The supervisor still listens: the next connection is made at once, and waits for it."""
    scene.connected()
    for _ in range(3):
        scene.daemon.hang_up()
        scene.poll()
        scene.poll(0.5)
        scene.daemon.accept()
        scene.daemon.tell(VIPS, loads=1)
        scene.poll()
    assert scene.reasons == []
    assert len(scene.lines) == 3
    # Without a word before: after a pause.
    scene.daemon.hang_up()
    scene.poll()
    scene.daemon.accept(b"")
    scene.daemon.hang_up()
    assert scene.poll() == pytest.approx(PAUSE)
    assert scene.reasons == []


def test_a_daemon_that_hangs_is_gone(scene: Scene) -> None:
    """Whether it was connected or not; it is noticed once it answers again."""
    scene.connected()
    scene.poll(SILENT - 0.1)
    assert scene.reasons == []
    scene.daemon.tell()
    assert scene.poll() == SILENT
    scene.poll(SILENT)
    assert scene.reasons == ["no sign of life for 4 s"]
    scene.poll(SILENT)
    assert len(scene.reasons) == 2
    scene.lines.clear()
    for _ in range(3):  # the connections that were given up are closed at the other end
        with contextlib.suppress(BrokenPipeError):
            scene.daemon.accept()
            scene.daemon.tell(VIPS, loads=1)
            break
    scene.poll()
    assert scene.lines == [{"loads": 1, "vips": VIPS}]


def test_a_daemon_with_too_much_to_do(tmp_path: Path) -> None:
    """One whose backlog is full is there, and asked again."""
    with Loop(()) as loop:
        scene = Scene(tmp_path, loop)
        scene.daemon.die()
        scene.daemon.listen(0)
        others = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for one in others:
            one.setblocking(False)
            one.connect_ex(str(scene.daemon.path))
        assert scene.poll() == pytest.approx(PAUSE)
        assert scene.reasons == []
        scene.poll(SILENT)
        assert scene.reasons == ["no sign of life for 4 s"]
        scene.stream.close()
        for one in others:
            one.close()
        scene.daemon.die()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            b'HTTP/1.0 403 Refused\r\n\r\n{"error": "the control socket is root\'s"}',
            "PATH: the control socket is root's",
        ),
        (b"HTTP/1.0 404 Not Found\r\n\r\n<html>", "PATH: it answers with status 404"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "what answers at PATH is no paraglider of this version"),
        (HEAD + b"[1]\n", "what answers at PATH is no paraglider of this version"),
        (HEAD + b"x\n", "what answers at PATH is no paraglider of this version"),
        (b'HTTP/1.0 503 Busy\r\n\r\n{"error": "too many"}', None),
        (b"", None),
    ],
)
def test_other_answers(scene: Scene, answer: bytes, why: str | None) -> None:
    """A refusal is as good as no daemon; one that is too busy for now is not gone yet."""
    scene.poll()
    scene.daemon.accept(answer)
    scene.daemon.hang_up()
    assert scene.poll() == pytest.approx(PAUSE)
    expected = [] if why is None else [why.replace("PATH", str(scene.daemon.path))]
    assert scene.reasons == expected
    assert scene.lines == []


def test_a_socket_that_is_not_there_or_not_ours(scene: Scene, monkeypatch: Any) -> None:
    """The reason says what to do."""
    scene.daemon.path.unlink()
    scene.poll()
    assert scene.reasons == [f"no paraglider answers at {scene.daemon.path}"]

    class Forbidden(socket.socket):
        """One that may not connect."""

        def connect(self, address: Any) -> None:
            """No."""
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Forbidden)
    scene.poll(PAUSE)
    assert scene.reasons[1].endswith("is not for this user: see `control.announcer`")


def test_an_answer_has_bounds() -> None:
    """Neither a head nor a line may be without end."""
    for begin in (b"HTTP/1.0 200 OK", HEAD + b'{"vips": "'):
        answer = StreamAnswer()
        answer.lines(begin)
        answer.lines(b"x" * (4 << 20))
        with pytest.raises(ValueError, match="too long"):
            answer.lines(b"x" * (4 << 20))

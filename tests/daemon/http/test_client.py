"""The other end of the control socket: every failure is an error with a remedy."""

from __future__ import annotations

import json
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paraglider.config.places import CONTROL_SOCKET
from paraglider.daemon.http.client import ControlClient, socket_of
from paraglider.errors import OperatorError, PlatformError


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket that listens, at a path short enough."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{directory}/control.sock")
        made.listen()
        yield made


@pytest.fixture
def answering(listening: socket.socket) -> Iterator[Callable[[bytes], ControlClient]]:
    """A function that answers one connection, whatever the request."""
    threads: list[threading.Thread] = []

    def answer(with_: bytes) -> ControlClient:
        def serve() -> None:
            end, _ = listening.accept()
            with end:
                heard.append(request(end))
                end.sendall(with_)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return ControlClient(listening.getsockname(), 30.0)

    yield answer
    for thread in threads:
        thread.join()


def request(end: socket.socket) -> bytes:
    """One complete request, in any number of pieces."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += end.recv(1 << 16)
    head, _, body = said.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    while length is not None and len(body) < int(length[1]):
        body += end.recv(1 << 16)
    return head + b"\r\n\r\n" + body


#: what the last ones asked
heard: list[bytes] = []


def http(status: int, body: object) -> bytes:
    """An answer."""
    text = json.dumps(body)
    return f"HTTP/1.1 {status} Odd\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def test_a_question_and_its_answer(answering: Callable[[bytes], ControlClient]) -> None:
    """Parameters that are None are omitted; names are quoted."""
    heard.clear()
    assert answering(http(200, [1])).get("flows", client="a/b", backend=None, limit=3) == [1]
    changed = answering(http(200, {"ok": 1})).set_backend("web", "[fd00::1]:80", weight=3)
    assert changed == {"ok": 1}
    first, second = (request.decode() for request in heard)
    assert first.startswith("GET /v1/flows?client=a%2Fb&limit=3 HTTP/1.1\r\n")
    assert second.startswith("POST /v1/backends/web/%5Bfd00%3A%3A1%5D%3A80 HTTP/1.1\r\n")
    assert second.endswith('{"weight": 3}')


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, OperatorError), (404, OperatorError), (500, PlatformError), (503, PlatformError)],
)
def test_a_refusal(
    answering: Callable[[bytes], ControlClient], status: int, kind: type[Exception]
) -> None:
    """The daemon's message, with the exit code by the status."""
    with pytest.raises(kind, match="not so; but so"):
        answering(http(status, {"error": "not so", "remedy": "but so"})).get("health")
    with pytest.raises(kind, match="Odd"):
        answering(http(status, [])).get("health")


@pytest.mark.parametrize(
    "answer",
    [b"", b"220 mail.example ESMTP\r\n", http(200, 1)[:-1], b"HTTP/1.1 200 OK\r\n\r\n<html>"],
    ids=["nothing", "another protocol", "half an answer", "no JSON"],
)
def test_another_server_answers(answering: Callable[[bytes], ControlClient], answer: bytes) -> None:
    """The error says that the server is not our daemon, or that it failed; no traceback, no
    waiting.
    """
    with pytest.raises(PlatformError, match=r"is no paraglider|failed"):
        answering(answer).get("health")


def test_a_refusal_before_the_request_is_whole(answering: Callable[[bytes], ControlClient]) -> None:
    """The answer is read although the request could not be sent completely."""
    refusing = answering(http(413, {"error": "too large", "remedy": "send less"}))
    with pytest.raises(OperatorError, match="too large; send less"):
        refusing.post("flows/kill", {"client": "x" * 4_000_000})


def test_no_daemon_listens(tmp_path: Path, listening: socket.socket) -> None:
    """No socket, or one that a dead daemon left."""
    path = listening.getsockname()
    listening.close()
    for gone in (path, str(tmp_path / "none")):
        with pytest.raises(OperatorError, match="no paraglider answers at .*; start it"):
            ControlClient(gone).get("health")


def test_silence(listening: socket.socket) -> None:
    """A daemon that hangs is waited for until the timeout."""
    with pytest.raises(PlatformError, match=r"no answer from .* in 0\.05 s"):
        ControlClient(listening.getsockname(), 0.05).get("health")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("control: {socket: /run/a.sock}\n", "/run/a.sock"),
        ("control: {socket: 5}\n", CONTROL_SOCKET),
        ("control: [socket]\n", CONTROL_SOCKET),
        ("services: nonsense\n", CONTROL_SOCKET),
        ("- 1\n", CONTROL_SOCKET),
        ("", CONTROL_SOCKET),
    ],
)
def test_the_socket_of_a_file(tmp_path: Path, text: str, path: str) -> None:
    """The rest of the file may be invalid: only the socket matters."""
    file = tmp_path / "paraglider.conf"
    file.write_text(text)
    assert socket_of(file) == path


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """An error, instead of another daemon's socket."""
    with pytest.raises(OperatorError, match="cannot be read: Is a directory"):
        socket_of(tmp_path)

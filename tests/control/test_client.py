"""The other end of the control socket, against a server that does what the test says."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paraglider.control.client import Control
from paraglider.errors import OperatorError, PlatformError


@pytest.fixture
def path() -> Iterator[str]:
    """Where the socket is: short enough for one, wherever the tests run."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield str(Path(directory, "s"))


def serve(path: str, answer: bytes) -> threading.Thread:
    """Answer one connection with ``answer`` as soon as it says anything, and hang up."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()

    def once() -> None:
        end, _ = listening.accept()
        end.recv(10)
        end.sendall(answer)
        end.close()
        listening.close()

    thread = threading.Thread(target=once)
    thread.start()
    return thread


def test_a_refusal_before_the_request_is_whole(path: str) -> None:
    """It is read all the same: what cannot be sent any more does not matter."""
    body = b'{"error": "too large", "remedy": "send less"}'
    head = b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    server = serve(path, head + body)
    with pytest.raises(OperatorError, match="too large"):
        Control(path).post("flows/kill", {"client": "x" * 4_000_000})
    server.join()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno!"])
def test_what_is_no_answer(path: str, answer: bytes) -> None:
    """A server that hangs up, or speaks of something else, is the platform's fault."""
    server = serve(path, answer)
    with pytest.raises(PlatformError):
        Control(path).get("health")
    server.join()


def test_nobody_there(path: str) -> None:
    """Where nothing listens the operator is told so."""
    with pytest.raises(OperatorError, match="no paraglider answers"):
        Control(path).get("health")

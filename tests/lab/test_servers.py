"""The lab's servers answer with their name over every protocol."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import TIMEOUT

from paraglider.lab import client, servers


def free_port(kind: socket.SocketKind) -> int:
    """A free port."""
    with socket.socket(socket.AF_INET6, kind) as sock:
        sock.bind(("", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """The HTTP and the UDP port of a running server called ``me``."""
    http_port, udp_port = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    command = [sys.executable, "-m", "paraglider.lab.servers", "me"]
    command += ["--http", str(http_port), "--udp", str(udp_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield http_port, udp_port
        process.terminate()
        assert process.wait() == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_http_answers_with_the_name(ports: tuple[int, int], address: str) -> None:
    """A request in either family is answered by the name."""
    assert client.tcp(address, ports[0], TIMEOUT) == "me"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_udp_answers_with_the_name(ports: tuple[int, int], address: str) -> None:
    """A datagram in either family is answered by the name."""
    assert client.udp(address, ports[1], TIMEOUT) == "me"


def test_udp_echoes_the_whole_datagram(ports: tuple[int, int]) -> None:
    """The answer to 8,000 bytes is the name, a space, and the 8,000 bytes."""
    sent = bytes(range(250)) * 32
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.sendto(sent, ("127.0.0.1", ports[1]))
        assert sock.recv(9000) == b"me " + sent


def test_bytes_of_any_length(ports: tuple[int, int]) -> None:
    """``/bytes/N`` answers N bytes, and the server's name in a header."""
    connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=TIMEOUT)
    connection.request("GET", "/bytes/200001")
    response = connection.getresponse()
    assert response.getheader("Server") == "me"
    assert len(response.read()) == 200_001
    connection.close()


def test_nonsense_does_not_stop_the_server(ports: tuple[int, int]) -> None:
    """After garbage, an endless head and a client that leaves, the server still answers."""
    for garbage in (b"\0\xff\r\n\r\n", b"x" * 100_000, b""):
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=TIMEOUT) as sock:
            try:
                sock.sendall(garbage)
            except ConnectionError:
                continue
    assert client.tcp("127.0.0.1", ports[0], TIMEOUT) == "me"


def test_a_taken_port_is_said(ports: tuple[int, int]) -> None:
    """A second server on the same port exits with one line."""
    command = [sys.executable, "-m", "paraglider.lab.servers", "other", "--http", str(ports[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1
    assert done.stderr.startswith("other: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("request_line", "length"),
    [(b"GET /bytes/10 HTTP/1.1\r\n", 10), (b"GET / HTTP/1.1\r\n", None), (b"", None)],
)
def test_body_length(request_line: bytes, length: int | None) -> None:
    """Only ``GET /bytes/N`` requests a length."""
    assert servers.body_length(request_line) == length

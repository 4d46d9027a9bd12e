"""The lab's client prints one result per try, also without a server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import TIMEOUT

from paraglider.lab import client, servers
from paraglider.lab.balancer import start_backend
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import new_prefix


@pytest.fixture
def inside() -> Iterator[Namespace]:
    """A namespace of this test's, where loopback answers pings."""
    with Namespace(f"{new_prefix()}-test") as made:
        yield made


def results(output: str) -> list[dict[str, str]]:
    """The objects that the client printed."""
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_each_failed_try_is_printed(protocol: str) -> None:
    """Port 1 of loopback has no listener: each of two tries is printed as refused."""
    command = [sys.executable, "-m", "paraglider.lab.client", protocol, "127.0.0.1", "1", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    told = results(done.stdout)
    assert len(told) == 2
    assert all("refused" in result["error"] for result in told)


def test_a_pause_is_between_tries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As long as it is given."""
    slept: list[float] = []
    monkeypatch.setattr(client.time, "sleep", slept.append)
    monkeypatch.setattr(sys, "argv", ["client", "tcp", "127.0.0.1", "1", "2", "3", "0.25"])
    client.main()
    assert (len(results(capsys.readouterr().out)), slept) == (2, [0.25, 0.25])


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_datagrams_come_from_the_ports_that_are_given(inside: Namespace, address: str) -> None:
    """The first port and those after it, one for each try."""
    with inside.entered():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = servers.udp_socket(family, 5353)
    with server:
        command = [sys.executable, "-m", "paraglider.lab.client", "udp", address, "5353"]
        asking = inside.popen([*command, "3", "60", "0", "20001"], stdout=subprocess.PIPE)
        server.settimeout(TIMEOUT)
        ports = []
        for _ in range(3):
            data, end = server.recvfrom(100)
            ports.append(end[1])
            server.sendto(b"me " + data, end)
        output = asking.communicate(timeout=TIMEOUT)[0].decode()
    assert ports == [20_001, 20_002, 20_003]
    assert results(output) == [{"answer": "me"}] * 3


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_ping_is_answered(inside: Namespace, address: str) -> None:
    """Loopback answers three pings of either family. The kernel may have no room to answer, and
    some are sent again (``reachable`` in ``test_topology``).
    """
    command = [sys.executable, "-m", "paraglider.lab.client", "ping", address, "0", "3"]
    for _ in range(4):
        found = results(inside.run(command).stdout)
        if {"error": "timed out"} not in found:
            break
    assert found == [{"answer": ""}] * 3


@pytest.mark.root
def test_a_download_in_two_halves(inside: Namespace) -> None:
    """The second half is read after a line of input; each line has the server and the bytes."""
    start_backend(inside, "one", http=(80,))
    command = [sys.executable, "-m", "paraglider.lab.client", "download", "127.0.0.1", "80", "1001"]
    process = inside.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first == {"answer": "one", "bytes": 500}
    rest, _ = process.communicate(b"\n\n", timeout=TIMEOUT)
    assert json.loads(rest) == {"answer": "one", "bytes": 1001}

"""The lab's client prints one result a try, also where nobody answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

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
def test_each_failed_try_is_told(protocol: str) -> None:
    """Nobody listens on port 1 of loopback: each of two tries says that it was refused."""
    command = [sys.executable, "-m", "paraglider.lab.client", protocol, "127.0.0.1", "1", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    told = results(done.stdout)
    assert len(told) == 2
    assert all("refused" in result["error"] for result in told)


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_ping_is_answered(inside: Namespace, address: str) -> None:
    """Loopback answers three pings of either family."""
    command = [sys.executable, "-m", "paraglider.lab.client", "ping", address, "0", "3"]
    assert results(inside.run(command).stdout) == [{"answer": ""}] * 3


@pytest.mark.root
def test_a_download_in_two_halves(inside: Namespace) -> None:
    """The second half comes after a line of input; each says whose it is and how far it has got."""
    start_backend(inside, "one", http=(80,))
    command = [sys.executable, "-m", "paraglider.lab.client", "download", "127.0.0.1", "80", "1001"]
    process = inside.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first == {"answer": "one", "bytes": 500}
    rest, _ = process.communicate(b"\n\n", timeout=20)
    assert json.loads(rest) == {"answer": "one", "bytes": 1001}

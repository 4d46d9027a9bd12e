"""An nft that hangs until the test releases it: the daemon continues meanwhile, and applies the
changes afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evenly import EVEN
from offloading import await_log, service
from processes import workers
from waiting import wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, backend_address

pytestmark = pytest.mark.root


#: as long as the file `closed` is there nft waits, and says so by the file `waits`
NFT = """\
#!/bin/sh
[ -e {directory}/closed ] && : > {directory}/waits
while [ -e {directory}/closed ]; do sleep 0.05; done
exec {nft} "$@"
"""


class SlowNft:
    """The nft that programs started from here on find, which waits between ``close`` and
    ``open``.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directory.mkdir()
        self._closed, self._waits = directory / "closed", directory / "waits"
        program = directory / "nft"
        self._real = shutil.which("nft")
        program.write_text(NFT.format(directory=directory, nft=self._real))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    @property
    def waits(self) -> bool:
        """Whether one was started that waits."""
        return self._waits.exists()

    def close(self) -> None:
        """From now on nft hangs."""
        self._closed.touch()

    def open(self) -> None:
        """nft no longer hangs."""
        self._closed.unlink(missing_ok=True)

    def hashed(self, running: LabBalancer) -> int:
        """How many backends the kernel's own hash chooses from, by an nft that does not wait."""
        listing = running.namespace.run([str(self._real), "list", "table", "ip", "paraglider"])
        (chain,) = re.findall(r"chain unanswered \{.*?\n\t\}", listing.stdout, re.DOTALL)
        return len(set(re.findall(r": 0x[0-9a-f]+", chain)))


class Manager:
    """A replacement of systemd: the socket of notifications, and a watchdog."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")

    def count(self, message: str) -> int:
        """How many times ``message`` was received."""
        try:
            while True:
                self.heard += self._socket.recv(4096).decode().split("\n")
        except BlockingIOError:
            return self.heard.count(message)

    def close(self) -> None:
        """Stop receiving."""
        self._socket.close()


@pytest.fixture
def slow_nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowNft]:
    """An nft that does not hang yet, and is released when the balancer is stopped."""
    made = SlowNft(tmp_path / "programs", monkeypatch)
    yield made
    made.open()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """The manager of the daemons that are started from here on."""
    made = Manager(tmp_path / "notify", monkeypatch)
    yield made
    made.close()


def command(running: LabBalancer, *arguments: str) -> str:
    """The output of `paraglider ARGUMENTS`; its exit code must be 0."""
    program = [sys.executable, "-m", "paraglider", "-c", str(running.config)]
    return str(running.namespace.run([*program, *arguments]).stdout)


def test_everything_goes_on_while_nft_hangs(
    topology: Any,
    serve: Any,
    config: Any,
    balancer: Any,
    ask: Any,
    slow_nft: SlowNft,
    manager: Manager,
) -> None:
    """`set` decides for new flows at once; health, show, a restart of a worker, SIGHUP and the
    watchdog go on; kernel and host follow as soon as nft does.
    """
    net = topology()
    serve(net, udp=())
    text = config(service(4))
    running = balancer(net, text, trouble=True)
    wait_until(lambda: slow_nft.hashed(running) == 3, running.log)
    slow_nft.close()

    one, two = (f"web4/{backend_address(4, number)}" for number in (1, 2))
    assert "state drain" in command(running, "set", "backend", one, "state", "drain")
    wait_until(lambda: slow_nft.waits, running.log)
    fed = manager.count("WATCHDOG=1")
    assert ask(net, "tcp", VIP[4], 80, 20) == {"backend2": 10, "backend3": 10}
    assert "weight 3" in command(running, "set", "backend", two, "weight", "3")
    assert "drain" in command(running, "show")
    (before,) = workers(running)
    os.kill(before, signal.SIGKILL)
    await_log(running, 'event="worker ready"', 2)
    assert workers(running) != [before]
    assert set(ask(net, "tcp", VIP[4], 80, 20)) == {"backend2", "backend3"}
    assert command(running, "health").startswith("healthy")

    running.config.write_text(text.replace(f"  - {backend_address(4, 3)}\n", ""))
    os.kill(running.pid, signal.SIGHUP)
    wait_until(lambda: manager.count("RELOADING=1"), running.log)
    ready = manager.count("READY=1")
    wait_until(lambda: manager.count("WATCHDOG=1") >= fed + 5, running.log)
    assert "drain" in command(running, "show")
    assert "configuration changed" not in running.log()
    assert slow_nft.hashed(running) == 3

    slow_nft.open()
    await_log(running, 'event="configuration changed"')
    wait_until(lambda: manager.count("READY=1") == ready + 1, running.log)
    wait_until(lambda: slow_nft.hashed(running) == 1, running.log)
    assert ask(net, "tcp", VIP[4], 80, 5) == {"backend2": 5}
    command(running, "set", "backend", one, "state", "ready")
    wait_until(lambda: slow_nft.hashed(running) == 2, running.log)
    assert EVEN.keys() > set(ask(net, "tcp", VIP[4], 80, 20))

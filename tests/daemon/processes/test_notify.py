"""The messages to systemd, at a socket like systemd's."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from paraglider.daemon.processes.notify import RETRY, Notifier


class Manager:
    """A service manager's end."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """The messages since the last call."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A manager whose socket is a file, as systemd's is."""
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


def notifier(tmp_path: Path, **variables: str) -> Notifier:
    """A notifier connected to ``manager``."""
    return Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), **variables})


def fill(tmp_path: Path) -> None:
    """Leave no room at ``manager``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"X=1", str(tmp_path / "notify"))


def test_what_is_reported(manager: Manager, tmp_path: Path) -> None:
    """Start, status, reload and end arrive in the protocol's words."""
    told = notifier(tmp_path)
    told.ready()
    told.status("2 of 2 workers serve")
    told.status("2 of 2 workers serve")
    told.reloading()
    told.stopping()
    ready, status, reloading, stopping = manager.heard()
    assert (ready, status, stopping) == ("READY=1", "STATUS=2 of 2 workers serve", "STOPPING=1")
    first, _, second = reloading.partition("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_the_watchdog_is_fed_twice_a_period(manager: Manager, tmp_path: Path) -> None:
    """The first heartbeat at once, the next after half of the period."""
    told = notifier(tmp_path, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    assert told.beat(100.0) == 15.0
    assert told.beat(107.0) == 8.0
    assert manager.heard() == ["WATCHDOG=1"]
    assert told.beat(115.0) == 15.0
    assert manager.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_no_beats(manager: Manager, tmp_path: Path, variables: dict[str, str]) -> None:
    """Without a watchdog, or for another process, nothing is sent."""
    assert notifier(tmp_path, **variables).beat(100.0) == inf
    assert manager.heard() == []


def test_a_beat_that_found_no_room_goes_out_later(manager: Manager, tmp_path: Path) -> None:
    """If the manager does not read, nothing waits, and the message is sent as soon as it reads."""
    told = notifier(tmp_path, WATCHDOG_USEC="30000000")
    fill(tmp_path)
    assert told.beat(100.0) == 1.0
    assert set(manager.heard()) == {"X=1"}
    assert told.beat(101.0) == 15.0
    assert manager.heard() == ["WATCHDOG=1"]


def test_what_finds_no_room_is_sent_later_in_its_order(manager: Manager, tmp_path: Path) -> None:
    """Nobody waits; of each kind the newest arrives, and a reload begins before it ends."""
    told = notifier(tmp_path)
    told.ready()
    fill(tmp_path)
    told.status("1 of 2 workers serve")
    told.reloading()
    told.status("2 of 2 workers serve")
    told.ready()
    assert told.flush() == RETRY
    assert told.beat(100.0) == RETRY
    assert set(manager.heard()) == {"READY=1", "X=1"}
    assert told.flush() == inf
    reloading, *rest = manager.heard()
    assert reloading.startswith("RELOADING=1\n")
    assert rest == ["STATUS=2 of 2 workers serve", "READY=1"]


def test_an_abstract_socket() -> None:
    """A name that begins with @ stands for an abstract socket."""
    name = f"paraglider-test-{os.getpid()}"
    manager = Manager("\0" + name)
    Notifier({"NOTIFY_SOCKET": "@" + name}).ready()
    assert manager.heard() == ["READY=1"]
    manager.socket.close()


def test_without_a_manager(tmp_path: Path) -> None:
    """Without the variable, or without a listener, nothing happens."""
    for told in (Notifier({}), notifier(tmp_path)):
        told.ready()
        told.status("on my own")
        told.stopping()
    assert Notifier({"WATCHDOG_USEC": "30000000"}).beat(100.0) == inf


def test_children_inherit_nothing(tmp_path: Path) -> None:
    """The manager's variables are gone from the environment once they are read."""
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    Notifier(environment)
    assert environment == {"HOME": "/"}

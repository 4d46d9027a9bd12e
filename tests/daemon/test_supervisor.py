"""The supervisor's loop: start and end of all processes, signals, systemd's notifications."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import TIMEOUT

from paraglider.daemon import log
from paraglider.daemon.workers.worker import WorkerSpec

STOP = 30.0  # seconds: it takes two, and what SIGTERM does not end is waited for a minute


def test_all_start_and_end(supervise: Any) -> None:
    """Every worker starts, the log says so, and SIGTERM ends them all with exit code 0."""
    running = supervise(supervise.serve, workers=3)
    running.await_events("ready")
    assert len(running.events("worker ready")) == 3
    assert [len(running.workers(i)) for i in range(3)] == [1, 1, 1]
    assert any("core=12" in line for line in running.events("worker ready"))
    running.end()
    assert running.status == 0
    assert running.nobody_left()
    assert running.events("ended")
    assert "level=error" not in running.log()


def test_all_ready_is_reported_once(supervise: Any) -> None:
    """When all are ready, before the log line; not again when one is replaced."""
    running = supervise(supervise.serve)
    running.await_events("ready")
    assert re.search(r"first time.*\n.*event=ready", running.log())
    os.kill(running.workers(0)[0], signal.SIGKILL)
    running.await_events("worker ready", 3)
    assert len(running.events("first time")) == 1


def test_all_ready_is_not_reported_while_one_is_missing(supervise: Any) -> None:
    """If a worker cannot start, ready is never called."""
    running = supervise(lambda spec, report: supervise.serve(spec, report) if spec.index else 2)
    running.wait_until(running.ended)
    assert running.events("first time") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_deaf_workers_do_not_keep_it(supervise: Any, number: signal.Signals) -> None:
    """A worker that ignores SIGTERM is killed."""
    running = supervise(supervise.ready_then_deaf)
    running.await_events("ready")
    assert running.end(number) < STOP
    assert running.status == 0
    assert running.nobody_left()
    assert len(running.events("worker exited with an error")) == 2


def test_sigterm_while_workers_start(supervise: Any) -> None:
    """SIGTERM during the start of workers ends the daemon at once."""
    running = supervise(supervise.silent)
    running.wait_until(lambda: running.workers(0) and running.workers(1))
    assert running.end() < STOP
    assert running.status == 0
    assert running.nobody_left()
    assert not running.events("ready")


def test_sighup_is_a_reload(supervise: Any) -> None:
    """SIGHUP calls the controller's reload."""
    running = supervise(supervise.serve)
    running.await_events("ready")
    os.kill(running.pid, signal.SIGHUP)
    running.await_events("reload")
    assert not running.ended()
    running.end()
    assert running.status == 0
    assert [len(running.workers(i)) for i in range(2)] == [1, 1]


def test_processes_share_the_objects_of_the_supervisor(supervise: Any) -> None:
    """They are frozen before the fork: no collector writes to them, which would unshare them."""

    def life(spec: WorkerSpec, report: int) -> int:
        log.logger().info("frozen", most=gc.get_freeze_count() > len(gc.get_objects()))
        return supervise.serve(spec, report)

    running = supervise(life, workers=1)
    running.await_events("ready")
    (line,) = running.events("frozen")
    assert "most=true" in line
    running.end()


class Manager:
    """A service manager that wants a heartbeat within ``period`` seconds: its socket is in the
    environment, and all messages are stored.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, period: float = 0.4) -> None:
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(TIMEOUT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        # While nobody reads, the socket holds ten messages, half a period apart.
        monkeypatch.setenv("WATCHDOG_USEC", str(int(period * 1e6)))

    def await_message(self, message: str) -> None:
        """Receive until ``message`` comes."""
        while True:
            self.heard.append(self._socket.recv(4096).decode())
            if self.heard[-1].partition("\n")[0] == message:
                return


def test_the_service_manager_is_notified(
    supervise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready with the number of workers, heartbeats, a reload and its end, and the stop."""
    manager = Manager(tmp_path / "notify", monkeypatch)
    running = supervise(supervise.serve)
    manager.await_message("WATCHDOG=1")
    assert manager.heard == ["READY=1", "STATUS=2 of 2 workers serve", "WATCHDOG=1"]
    manager.await_message("WATCHDOG=1")
    os.kill(running.pid, signal.SIGHUP)
    manager.await_message("RELOADING=1")
    manager.await_message("READY=1")
    os.kill(running.pid, signal.SIGTERM)
    manager.await_message("STOPPING=1")
    running.wait_until(running.ended)


def test_no_watchdog_message_while_no_worker_serves(
    supervise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If every worker is dead no heartbeat is sent, although the loop runs."""
    manager = Manager(tmp_path / "notify", monkeypatch, period=0.02)
    never = dict.fromkeys(("LONG_ENOUGH", "FIRST_WAIT", "LONGEST_WAIT"), 3600.0)
    running = supervise(supervise.ready_then_die, **never)
    manager.await_message("STATUS=0 of 2 workers serve")
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        os.kill(running.pid, signal.SIGHUP)
        manager.await_message("RELOADING=1")
        manager.await_message("READY=1")
    begin = manager.heard.index("STATUS=0 of 2 workers serve")
    assert "WATCHDOG=1" not in manager.heard[begin:]

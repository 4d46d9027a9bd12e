"""The daemon's standard streams, end to end: no reader, a full disk, closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from failing import wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.errors import ParagliderError
from paraglider.lab.topology import VIP

pytestmark = pytest.mark.root


def answers(control: ControlClient, pid: int) -> bool:
    """Whether all processes of the daemon serve; none of those is ``pid``."""
    try:
        rows = control.get("workers")
    except ParagliderError:
        return False
    return all(row["up"] and row["pid"] != pid for row in rows)


def test_nobody_takes_what_the_daemon_says(
    topology: Any, serve: Any, config: Any, service: Any, ask: Any, balancer: Any, tmp_path: Path
) -> None:
    """Without a reader, with a full disk and without any stream the daemon begins, serves, reloads,
    replaces a worker that is killed, and ends well.
    """
    net = topology()
    serve(net, udp=())
    running = balancer(net, config(service(4, ports=80)), start=False)
    control = ControlClient(str(tmp_path / "control.sock"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for number, where in enumerate((f">{pipe} 2>&1", ">/dev/full 2>&1", "<&- >&- 2>&-")):
        command = ["sh", "-c", f'exec "$@" {where}', "sh", *running.daemon_command]
        daemon = net.balancer.popen(command)
        wait_until(lambda pid=daemon.pid: answers(control, pid), lambda: "not ready")
        if not number:
            assert b"event=ready" in os.read(reader, 1 << 16)
            os.close(reader)
        strategy = ("maglev", "wrr", "source")[number]
        text = config_with(running.config.read_text(), strategy)
        running.config.write_text(text)
        reload = [sys.executable, "-m", "paraglider", "reload", "-c", str(running.config)]
        done = subprocess.run(net.balancer.command(reload), capture_output=True, text=True)
        assert (done.returncode, strategy in done.stdout) == (0, True), done.stderr
        (victim,) = (row["pid"] for row in control.get("workers") if row["role"] == "worker")
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda pid=victim: answers(control, pid), lambda: "the worker is not back")
        assert ask(net, "tcp", VIP[4], 80, 5).total() == 5
        daemon.terminate()
        assert daemon.wait(30) == 0


def config_with(text: str, strategy: str) -> str:
    """The configuration ``text`` with another strategy."""
    lines = [line for line in text.splitlines() if "strategy:" not in line]
    at = next(n for n, line in enumerate(lines) if line.startswith("  vip:"))
    return "\n".join([*lines[:at], f"  strategy: {strategy}", *lines[at:], ""])

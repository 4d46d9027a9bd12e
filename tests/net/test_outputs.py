"""The daemon's standard streams, end to end: no reader, a full disk, closed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import TIMEOUT, wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.errors import ParagliderError
from paraglider.lab.topology import VIP

pytestmark = pytest.mark.root


def answers(control: ControlClient, daemon: subprocess.Popen[bytes], pid: int = 0) -> bool:
    """Whether all processes of ``daemon``, which must not end, are ready; none is ``pid``."""
    assert daemon.poll() is None, f"it ended with exit {daemon.returncode}"
    try:
        rows = control.get("workers")
    except ParagliderError:
        return False
    return all(row["up"] and row["pid"] != pid for row in rows)


def state(control: ControlClient) -> str:
    """What the control socket says, for a test that fails."""
    try:
        return f"{control.get('workers')}\n{control.get('health')}"
    except ParagliderError as error:
        return str(error)


def test_outputs_without_a_reader(
    topology: Any, serve: Any, config: Any, service: Any, ask: Any, balancer: Any, tmp_path: Path
) -> None:
    """Without a reader, with a full disk and without any stream the daemon starts, serves, reloads,
    replaces a killed worker, and exits with 0.
    """
    net = topology()
    serve(net, udp=())
    running = balancer(net, config(service(4, ports=80)), start=False)
    control = ControlClient(str(tmp_path / "control.sock"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    said: list[bytes] = []
    for number, where in enumerate((f">{pipe} 2>&1", ">/dev/full 2>&1", "<&- >&- 2>&-")):
        command = ["sh", "-c", f'exec "$@" {where}', "sh", *running.daemon_command]
        daemon = net.balancer.popen(command)
        wait_until(lambda daemon=daemon: answers(control, daemon), lambda: state(control))
        if not number:
            wait_until(lambda: is_ready(reader, said), lambda: str(said))  # it answers before
            os.close(reader)
        strategy = ("maglev", "wrr", "source")[number]
        text = config_with(running.config.read_text(), strategy)
        running.config.write_text(text)
        reload = [sys.executable, "-m", "paraglider", "reload", "-c", str(running.config)]
        done = net.balancer.run(reload, check=False, timeout=2 * TIMEOUT)
        assert (done.returncode, strategy in done.stdout) == (0, True), done.stderr
        (victim,) = (row["pid"] for row in control.get("workers") if row["role"] == "worker")
        os.kill(victim, signal.SIGKILL)
        wait_until(
            lambda daemon=daemon, pid=victim: answers(control, daemon, pid), lambda: state(control)
        )
        assert ask(net, "tcp", VIP[4], 80, 5).total() == 5
        daemon.terminate()
        assert daemon.wait(TIMEOUT) == 0


def is_ready(reader: int, said: list[bytes]) -> bool:
    """Whether the daemon says so in what is read now, or was before (``said``)."""
    with contextlib.suppress(BlockingIOError):
        said.append(os.read(reader, 1 << 16))
    return b"event=ready" in b"".join(said)


def config_with(text: str, strategy: str) -> str:
    """The configuration ``text`` with another strategy."""
    lines = [line for line in text.splitlines() if "strategy:" not in line]
    at = next(n for n, line in enumerate(lines) if line.startswith("  vip:"))
    return "\n".join([*lines[:at], f"  strategy: {strategy}", *lines[at:], ""])

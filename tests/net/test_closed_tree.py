"""A clone in a directory of mode 700, end to end: no process needs a file of it after the start."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from browsing import PORT as PAGE
from browsing import ask_page
from naming import NAME, NameServer
from naming import PORT as DNS_PORT
from processes import children
from waiting import TIMEOUT, wait_until

from paraglider.daemon.http.client import ControlClient
from paraglider.errors import ParagliderError
from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP

pytestmark = pytest.mark.root

CLOSED = Path(__file__).parent / "closed_tree.py"
#: whose the directory is: neither root nor the user of the workers
OWNER = 12345


class ClosedBalancer(LabBalancer):
    """A balancer whose daemon runs from the closed directory and writes late
    imports into ``late``.
    """

    @property
    def late(self) -> Path:
        """The file with the modules that were imported after privileges were dropped."""
        return self.log_file.with_name("late")

    @property
    def daemon_command(self) -> list[str]:
        """See ``LabBalancer``."""
        closed = [sys.executable, str(CLOSED), str(OWNER), str(self.late)]
        return [*closed, *super().daemon_command]


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that all users may enter; pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="paraglider-closed-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_every_process_works_and_imports_nothing_late(
    topology: Any, serve: Any, config: Any, service: Any, ask: Any, open_directory: Path
) -> None:
    """Workers, the conntrack counter, a proxy worker, the monitor with every kind of check and of
    source, the control socket and the page: all start, do their work, and start again after they
    were killed; a reload changes the host. The first variable of the daemon is not the one that it
    was started with.
    """
    net = topology()
    serve(net, http=(80, 81, 82, 83), udp=())
    names = NameServer(net.balancer, open_directory / "hosts")
    names.serve(1)
    listed = open_directory / "web"
    listed.write_text("10.0.0.1\n")
    every = {"interval": 1, "timeout": 20, "rise": 1, "fall": 1}
    first, *others = (
        {**service(4, ports=80), "check": {"type": "tcp", **every}},
        {**service(6, ports=80), "check": {"type": "icmp", **every}},
        {
            **service(4, ports=81, forward="offload", strategy="weighted"),
            "name": "offload",
            "check": {"type": "http", **every},
        },
        {
            **service(4, ports=82, forward="proxy"),
            "name": "proxy",
            "check": {"type": "https", **every},  # which fails: all are used
            "all_down": "use_all",
        },
        {
            **service(4, ports=83, forward="offload"),
            "name": "exec",
            "check": {"type": "exec", "command": ["/bin/true"], **every},
        },
        {**service(4, ports=84), "name": "file", "backends": {"file": str(listed)}},
        {
            **service(4, ports=85),
            "name": "dns",
            "backends": {"dns": NAME, "server": f"127.0.0.1:{DNS_PORT}"},
        },
    )
    document = yaml.safe_load(config(first, *others, stats={"bind": f"127.0.0.1:{PAGE}"}))
    document["chroot"] = str(open_directory)
    document["control"]["socket"] = str(open_directory / "control.sock")
    text = yaml.safe_dump(document)
    running = ClosedBalancer(net.balancer, open_directory, text)
    running.late.touch()
    running.late.chmod(0o666)
    asked = ControlClient(str(open_directory / "control.sock"))
    running.set_up()
    try:
        running.start()
        roles = {"http", "mon", "host", "conn"}
        before: dict[str, int] = {}
        for again in (False, True):
            begun = _processes(running)
            assert {f"paraglider/{role}" for role in roles} < set(begun)
            assert not set(begun.values()) & set(before.values())
            for port in (80, 81, 82, 83):
                assert sum(ask(net, "tcp", VIP[4], port, 3).values()) == 3
            assert sum(ask(net, "tcp", VIP[6], 80, 3).values()) == 3
            # Until it has heard from the supervisor, the page has no numbers.
            wait_until(lambda: b"paraglider_" in ask_page(net.balancer, "/metrics")[2], running.log)
            assert b"<html" in ask_page(net.balancer, "/")[2]
            _await_checks(asked, running)
            # The monitor sees a file that changes, and the name server's next answer.
            number = 3 if again else 2
            listed.write_text(f"10.0.0.1\n10.0.0.{number}\n")
            names.serve(1, number)
            for source in ("file", "dns"):
                wait_until(lambda s=source, n=number: _has(asked, s, n), running.log)
            if not again:
                before = _processes(running)
                for pid in before.values():
                    with contextlib.suppress(ProcessLookupError):  # replaced meanwhile
                        os.kill(pid, signal.SIGKILL)
                wait_until(lambda old=before: _all_serve(asked, old), running.log)
        document["services"][5]["ports"] = [84, 86]
        running.config.write_text(yaml.safe_dump(document))
        reload = [sys.executable, "-m", "paraglider", "reload", "-c", str(running.config)]
        done = net.balancer.run(reload, timeout=2 * TIMEOUT)
        assert "ports" in done.stdout
        assert running.late.read_text() == ""
    finally:
        status = running.stop()
        names.kill()
        running.undo()
    assert status == 0, running.log()
    assert "Error" not in running.log()


def _processes(running: LabBalancer) -> dict[str, int]:
    """The daemon's processes, but the programs that it runs."""
    return {name: pid for name, pid in children(running).items() if name.startswith("para")}


def _has(asked: ControlClient, service: str, number: int) -> bool:
    found = asked.get("backends", service=service)
    return f"10.0.0.{number}" in {row["backend"].partition(":")[0] for row in found}


def _all_serve(asked: ControlClient, before: dict[str, int]) -> bool:
    """Whether all processes are others than before, and serve."""
    try:
        rows = asked.get("workers")
    except ParagliderError:  # the process of the control socket is the one that is started
        return False
    return all(row["up"] and row["pid"] not in before.values() for row in rows)


def _await_checks(asked: ControlClient, running: LabBalancer) -> None:
    """Wait until every kind of check has reported the expected result of all its backends."""
    wanted = {"web4": True, "web6": True, "offload": True, "proxy": False, "exec": True}

    def said() -> bool:
        rows = [row for row in asked.get("backends") if row["service"] in wanted]
        return all(
            row["check"] is not None and row["check"]["passed"] == wanted[row["service"]]
            for row in rows
        )

    wait_until(said, running.log)

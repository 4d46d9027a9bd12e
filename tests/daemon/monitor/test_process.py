"""Tests of ``paraglider.daemon.monitor.process``.

The process as it runs, and what it is allowed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.health import Check
from paraglider.config.load import parse
from paraglider.daemon.ipc import IpcEndpoint, Kind
from paraglider.daemon.messages import (
    FROM_ROLE,
    TO_ROLE,
    FileChanged,
    HealthNews,
    Message,
    SetSources,
    SetTargets,
    WriteCounters,
)
from paraglider.daemon.monitor import process as monitor_module
from paraglider.daemon.monitor.outbox import DiscoveryNews
from paraglider.daemon.monitor.process import (
    MonitorSpec,
    chroot_for,
    echo_for,
    run,
    runs_programs,
)
from paraglider.daemon.processes.spec import READY
from paraglider.errors import PlatformError
from paraglider.health.pinger import Pinger
from paraglider.health.results import CheckReport
from paraglider.health.targets import Target

NOBODY = 65534
PATIENCE = 30
SERVICE = "services: [{name: a, vip: 10.1.1.1, protocol: tcp, backends: [10.0.0.1]%s}]\n"
EXEC = ", check: {type: exec, command: [/bin/true]}"
ICMP = ", check: {type: icmp}"


class Running:
    """A monitor's process, and the supervisor's end of its endpoint."""

    def __init__(self, chroot: Path, programs: bool, discovers: bool) -> None:
        self.supervisor, theirs = IpcEndpoint.pair(FROM_ROLE["monitor"], TO_ROLE["monitor"])
        reading, writing = os.pipe()
        parent = os.getpid()
        with Pinger() as echo:
            place = (0, echo, NOBODY, NOBODY, str(chroot))
            spec = MonitorSpec(*place, programs, discovers, endpoint=theirs)
            self.pid = os.fork()
            if self.pid == 0:
                self.supervisor.close()
                with contextlib.suppress(BaseException):
                    os._exit(run(spec, writing, parent))
                os._exit(70)
        theirs.close()
        os.close(writing)
        with os.fdopen(reading, "rb") as report:
            assert report.read() == READY

    def check(self, *targets: Target) -> None:
        """Have it check these."""
        self.supervisor.send(SetTargets.of(targets))

    def report(self) -> CheckReport:
        """How the next check went."""
        while select.select([self.supervisor], [], [], PATIENCE)[0]:
            for frame in self.supervisor.receive():
                assert isinstance(frame.message, HealthNews)
                if frame.message.reports:
                    return frame.message.reports[0]
        raise AssertionError("no report came")

    def found(self) -> DiscoveryNews:
        """What discovery reports next."""
        while select.select([self.supervisor], [], [], PATIENCE)[0]:
            for frame in self.supervisor.receive():
                assert isinstance(frame.message, DiscoveryNews)
                return frame.message
        raise AssertionError("nothing was found")

    def ended(self) -> int:
        """Its exit code, as soon as it has one."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            select.select([], [], [], 0.01)
        raise AssertionError("it does not end")

    def close(self) -> None:
        """End it, if it still runs."""
        self.supervisor.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """A factory of monitors, locked in an empty directory."""
    made: list[Running] = []
    empty = tmp_path / "empty"
    empty.mkdir()

    def make(chroot: Path = empty, programs: bool = False, discovers: bool = False) -> Running:
        made.append(Running(chroot, programs, discovers))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a server that answers 204 to everything."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                    client.close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def target(port: int, **check: Any) -> Target:
    """This host as a backend."""
    checked = Check(**{"interval": 0.5, "timeout": 20, **check})
    return Target("web", "127.0.0.1", ipaddress.ip_address("127.0.0.1"), port, checked)


@pytest.mark.root
@pytest.mark.parametrize(
    ("check", "detail"),
    [
        ({"type": "http"}, "status 204"),
        ({"type": "tcp"}, "connected"),
        ({"type": "icmp"}, "answered"),
        ({"type": "https", "host": "www.example.com"}, "connect: TLS: wrong version number"),
    ],
)
def test_looks_from_within_the_lock(
    running: Callable[..., Running], web: int, check: dict[str, Any], detail: str
) -> None:
    """Locked in an empty directory, as nobody, without a right, it does its work."""
    process = running()
    process.check(target(web, **check))
    assert process.report().detail == detail
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(NOBODY)] * 4
    assert fields["Gid"].split() == [str(NOBODY)] * 4
    for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
        assert int(fields[kind], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert Path(f"/proc/{process.pid}/root").readlink() != Path("/")


@pytest.mark.root
def test_programs_run_as_nobody(running: Callable[..., Running]) -> None:
    """A check's program has no more rights than the monitor, and needs the host's files."""
    process = running(Path("/"), programs=True)
    process.check(target(0, type="exec", command=["/usr/bin/id", "-u"]))
    assert process.report().detail == f"exit code 0: {NOBODY}"


@pytest.mark.root
def test_it_watches_files_as_nobody(running: Callable[..., Running]) -> None:
    """Beside its checks, without rights, and not locked in: the file is where it is."""
    process = running(Path("/"), discovers=True)
    file = Path("/tmp") / f"paraglider-monitor-{process.pid}"
    process.supervisor.send(SetSources(names=(), files=(str(file),)))
    assert process.found() == FileChanged(file=str(file))
    file.touch()
    try:
        assert process.found() == FileChanged(file=str(file))
    finally:
        file.unlink()
    os.kill(process.pid, signal.SIGTERM)
    assert process.ended() == 0


@pytest.mark.root
def test_ends_when_it_is_told(running: Callable[..., Running], web: int) -> None:
    """SIGTERM ends it well, in the midst of its work too."""
    process = running()
    process.check(target(web, type="http"))
    process.report()
    os.kill(process.pid, signal.SIGTERM)
    assert process.ended() == 0


@pytest.mark.root
@pytest.mark.parametrize("message", [WriteCounters(), None])
def test_a_supervisor_that_is_gone_or_wrong(
    running: Callable[..., Running], message: Message | None
) -> None:
    """It ends with the supervisor, and at an invalid message."""
    process = running()
    if message is None:
        process.supervisor.close()
    else:
        process.supervisor.send(message, Kind.MESSAGE)
    assert process.ended() == (0 if message is None else PlatformError.exit_code)


@pytest.mark.parametrize(
    ("check", "discovers", "place", "programs"),
    [
        ("", False, "/var/run/empty", False),
        (ICMP, False, "/var/run/empty", False),
        (EXEC, False, "/", True),
        ("", True, "/", False),
    ],
)
def test_where_it_is_locked_in(check: str, discovers: bool, place: str, programs: bool) -> None:
    """Programs, the DNS and lists of backends need the host's files, nothing else does."""
    config = parse(SERVICE % check, "f").config
    assert (chroot_for(config, discovers=discovers), runs_programs(config)) == (place, programs)


@pytest.mark.parametrize(
    ("head", "check", "failover", "needed"),
    [
        ("", "", False, False),
        ("", EXEC, False, False),
        ("", ICMP, False, True),
        ("", "", True, True),
        ("failover: {enabled: true}\n", "", False, True),
    ],
)
def test_pings_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, head: str, check: str, failover: bool, needed: bool
) -> None:
    """Without CAP_NET_RAW all goes on, unless there is something to ping."""

    def refuse() -> None:
        raise PlatformError("no raw socket")

    monkeypatch.setattr(monitor_module, "Pinger", refuse)
    config = parse(head + SERVICE % check, "f").config
    if needed:
        with pytest.raises(PlatformError):
            echo_for(config, failover=failover)
    else:
        assert echo_for(config, failover=failover) is None

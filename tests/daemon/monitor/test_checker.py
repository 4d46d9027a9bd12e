"""Tests of ``paraglider.daemon.monitor.checker``.

The process as it runs, and what it is allowed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from paraglider.config.health import Check
from paraglider.config.load import parse
from paraglider.daemon.monitor import checker as checker_module
from paraglider.daemon.monitor.checker import CheckerSpec, chroot_for, echo_for, run
from paraglider.daemon.processes.spec import READY
from paraglider.errors import PlatformError
from paraglider.health.messages import Report, Targets, told
from paraglider.health.pinger import Pinger
from paraglider.health.targets import Target

NOBODY = 65534
PATIENCE = 30
SERVICE = "services: [{name: a, vip: 10.1.1.1, protocol: tcp, backends: [10.0.0.1]%s}]\n"
EXEC = ", check: {type: exec, command: [/bin/true]}"
ICMP = ", check: {type: icmp}"


class Line:
    """A channel of the simplest kind: a datagram a message."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.waiting = False

    def fileno(self) -> int:
        """See ``checker.End``."""
        return self._end.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """See ``checker.End``."""
        self._end.send(json.dumps(message).encode())

    def flush(self) -> None:
        """See ``checker.End``."""

    def receive(self) -> list[dict[str, Any]]:
        """See ``checker.End``."""
        data = self._end.recv(1 << 16)
        if not data:
            raise PlatformError("the other end is gone")
        return [json.loads(data)]


class Running:
    """A checker's process, and the hub's end of its channel."""

    def __init__(self, chroot: Path) -> None:
        self.hub, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        parent = os.getpid()
        with Pinger() as echo:
            spec = CheckerSpec(0, echo, NOBODY, NOBODY, str(chroot), channel=Line(theirs))
            self.pid = os.fork()
            if self.pid == 0:
                self.hub.close()
                with contextlib.suppress(BaseException):
                    os._exit(run(spec, writing, parent))
                os._exit(70)
        theirs.close()
        os.close(writing)
        with os.fdopen(reading, "rb") as report:
            assert report.read() == READY

    def order(self, *targets: Target) -> None:
        """Have it look at these."""
        self.hub.send(json.dumps(Targets(targets).plain()).encode())

    def report(self) -> Report:
        """How the next look went."""
        self.hub.settimeout(PATIENCE)
        while True:
            for news in told(json.loads(self.hub.recv(1 << 16))):
                if isinstance(news, Report):
                    return news

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
        self.hub.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """A factory of checkers, locked in an empty directory."""
    made: list[Running] = []
    empty = tmp_path / "empty"
    empty.mkdir()

    def make(chroot: Path = empty) -> Running:
        made.append(Running(chroot))
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
    process.order(target(web, **check))
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
    """A check's program has no more rights than the checker, and needs the host's files."""
    process = running(Path("/"))
    process.order(target(0, type="exec", command=["/usr/bin/id", "-u"]))
    assert process.report().detail == f"exit code 0: {NOBODY}"


@pytest.mark.root
def test_ends_when_it_is_told(running: Callable[..., Running], web: int) -> None:
    """SIGTERM ends it well, in the midst of its work too."""
    process = running()
    process.order(target(web, type="http"))
    process.report()
    os.kill(process.pid, signal.SIGTERM)
    assert process.ended() == 0


@pytest.mark.root
@pytest.mark.parametrize("message", [b'{"do": "dance"}', b"{}", None])
def test_a_hub_that_is_gone_or_odd(running: Callable[..., Running], message: bytes | None) -> None:
    """Without a hub that makes sense it does not go on."""
    process = running()
    if message is None:
        process.hub.close()
    else:
        process.hub.send(message)
    assert process.ended() == PlatformError.exit_code


@pytest.mark.parametrize(("check", "place"), [("", "/var/run/empty"), (ICMP, None), (EXEC, "/")])
def test_where_it_is_locked_in(check: str, place: str | None) -> None:
    """A program of the operator's needs the host's files, nothing else does."""
    config = parse(SERVICE % check, "f").config
    assert chroot_for(config) == (place or config.chroot)


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

    monkeypatch.setattr(checker_module, "Pinger", refuse)
    config = parse(head + SERVICE % check, "f").config
    if needed:
        with pytest.raises(PlatformError):
            echo_for(config, failover=failover)
    else:
        assert echo_for(config, failover=failover) is None

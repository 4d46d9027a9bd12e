"""Tests of ``paraglider.daemon.monitor.process``: the running process, and its privileges."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import dns.message
import dns.rdatatype
import dns.rrset
import pytest
from stand_ins import ForkedProcess, signalled_while_closing
from waiting import TIMEOUT

from paraglider.config.health import Check
from paraglider.config.load import parse
from paraglider.core.strategies import STRATEGIES
from paraglider.daemon.ipc import IpcEndpoint, Kind
from paraglider.daemon.messages import (
    DnsName,
    DnsUpdate,
    FileChanged,
    HealthNews,
    Message,
    SetSources,
    SetTargets,
    WriteCounters,
)
from paraglider.daemon.monitor import process as monitor_module
from paraglider.daemon.monitor.discovery import preload
from paraglider.daemon.monitor.outbox import DiscoveryNews
from paraglider.daemon.monitor.process import (
    MonitorSpec,
    chroot_for,
    echo_for,
    run,
    runs_programs,
)
from paraglider.daemon.processes.spec import StartupState
from paraglider.errors import PlatformError
from paraglider.health.pinger import Pinger
from paraglider.health.results import CheckReport
from paraglider.health.targets import Target

NOBODY = 65534
MOST_PINGS = 20
SERVICE = "services: [{name: a, vip: 10.1.1.1, protocol: tcp, backends: [10.0.0.1]%s}]\n"
EXEC = ", check: {type: exec, command: [/bin/true]}"
ICMP = ", check: {type: icmp}"


class Running(ForkedProcess):
    """A monitor's process, and the supervisor's end of its endpoint."""

    def __init__(self, chroot: Path, programs: bool, discovers: bool) -> None:
        with Pinger() as echo:

            def life(endpoint: IpcEndpoint, report: int, parent: int) -> int:
                place = (0, echo, NOBODY, NOBODY, str(chroot))
                return run(
                    MonitorSpec(*place, programs, discovers, endpoint=endpoint), report, parent
                )

            super().__init__("monitor", life)

    def check(self, *targets: Target) -> None:
        """Send these targets."""
        self.endpoint.send(SetTargets.of(targets))

    def report(self) -> CheckReport:
        """How the next check went."""
        while select.select([self.endpoint], [], [], TIMEOUT)[0]:
            for frame in self.endpoint.receive():
                assert isinstance(frame.message, HealthNews)
                if frame.message.reports:
                    return frame.message.reports[0]
        raise AssertionError("no report came")

    def found(self) -> DiscoveryNews:
        """The next report of discovery."""
        while select.select([self.endpoint], [], [], TIMEOUT)[0]:
            for frame in self.endpoint.receive():
                assert isinstance(frame.message, DiscoveryNews)
                return frame.message
        raise AssertionError("nothing was found")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """A factory of monitors, locked in an empty directory."""
    made: list[Running] = []
    empty = tmp_path / "empty"
    empty.mkdir()

    def make(chroot: Path = empty, programs: bool = False, discovers: bool = False) -> Running:
        if discovers:
            preload()  # as the supervisor does before the fork
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
def test_signals_while_it_ends(
    running: Callable[..., Running],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """They are no fault: systemd's and that of the parent's death may come one after the other."""
    signalled_while_closing(monkeypatch)
    it = running()
    os.kill(it.pid, signal.SIGTERM)
    assert it.ended() == 0
    assert capfd.readouterr().err == ""


@pytest.mark.root
@pytest.mark.parametrize(
    ("check", "detail"),
    [
        ({"type": "http"}, "status 204"),
        ({"type": "tcp"}, "connected"),
        ({"type": "icmp", "timeout": 2}, "answered"),
        ({"type": "https", "host": "www.example.com"}, "connect: TLS: wrong version number"),
    ],
)
def test_checks_without_privileges(
    running: Callable[..., Running], web: int, check: dict[str, Any], detail: str
) -> None:
    """In an empty root directory, as nobody without capabilities, it checks backends."""
    process = running()
    process.check(target(web, **check))
    said = [process.report().detail]
    while check["type"] == "icmp" and said[-1] != detail and len(said) < MOST_PINGS:
        said.append(process.report().detail)  # a kernel may have no room to send the reply
    assert said[-1] == detail, said
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
    """It watches files beside its checks, without capabilities, with "/" as root directory."""
    process = running(Path("/"), discovers=True)
    file = Path("/tmp") / f"paraglider-monitor-{process.pid}"
    process.endpoint.send(SetSources(names=(), files=(str(file),)))
    assert process.found() == FileChanged(file=str(file))
    file.touch()
    try:
        assert process.found() == FileChanged(file=str(file))
    finally:
        file.unlink()
    os.kill(process.pid, signal.SIGTERM)
    assert process.ended() == 0


def answer_queries(server: socket.socket) -> None:
    """Answer DNS queries at ``server`` until it is shut down."""
    records = {dns.rdatatype.SRV: "0 3 8080 b.example.", dns.rdatatype.A: "10.0.0.7"}
    while True:
        data, client = server.recvfrom(4096)
        if not data:
            return
        reply = dns.message.make_response(dns.message.from_wire(data))
        (question,) = reply.question
        text = records[question.rdtype]
        reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype, text))
        server.sendto(reply.to_wire(), client)


@pytest.mark.root
def test_it_queries_the_dns_in_an_empty_directory(running: Callable[..., Running]) -> None:
    """The name servers come with the order: it needs no file for them."""
    number = os.getpid()
    here = f"127.{100 + (number >> 16) % 100}.{(number >> 8) % 256}.{number % 256}"
    process = running(discovers=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((here, 53))
        answering = Thread(target=answer_queries, args=(server,))
        answering.start()
        name = DnsName("_a._tcp.example", "", 4)
        order = SetSources(names=(name,), files=(), resolv_conf=f"nameserver {here}\n")
        process.endpoint.send(order)
        try:
            news = process.found()
        finally:
            server.sendto(b"", (here, 53))
            answering.join()
    assert isinstance(news, DnsUpdate), news
    assert [(str(r.address), r.port, r.weight) for r in news.records] == [("10.0.0.7", 8080, 3)]


@pytest.mark.root
def test_ends_by_sigterm(running: Callable[..., Running], web: int) -> None:
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
    """It exits with the supervisor, and after an invalid message."""
    process = running()
    if message is None:
        process.endpoint.close()
    else:
        process.endpoint.send(message, Kind.MESSAGE)
    assert process.ended() == (0 if message is None else PlatformError.exit_code)


@pytest.mark.parametrize(
    ("check", "files", "place", "programs"),
    [
        ("", False, "/var/run/empty", False),
        (ICMP, False, "/var/run/empty", False),
        (EXEC, False, "/", True),
        ("", True, "/", False),
    ],
)
def test_where_it_is_locked_in(check: str, files: bool, place: str, programs: bool) -> None:
    """Programs and lists of backends in files need the host's files, nothing else does."""
    config = parse(SERVICE % check, "f").config
    assert (chroot_for(config, files=files), runs_programs(config)) == (place, programs)
    spec = MonitorSpec(0, None, NOBODY, NOBODY, "/elsewhere", discovers=True)
    state = StartupState(config, {}, STRATEGIES, watches_files=files)
    assert spec.updated(state).chroot == place


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
    """Without CAP_NET_RAW it runs, unless a check needs pings."""

    def refuse() -> None:
        raise PlatformError("no raw socket")

    monkeypatch.setattr(monitor_module, "Pinger", refuse)
    config = parse(head + SERVICE % check, "f").config
    if needed:
        with pytest.raises(PlatformError):
            echo_for(config, failover=failover)
    else:
        assert echo_for(config, failover=failover) is None

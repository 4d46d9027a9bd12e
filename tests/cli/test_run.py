"""The command that balances: its checks before the start, and the started processes.

Privileges are not dropped and no worker is forked here: the calls are recorded.
"""

from __future__ import annotations

import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from paraglider.cli import run as command
from paraglider.cli.errors import run_command
from paraglider.cli.main import main
from paraglider.daemon.http.process import HttpSpec
from paraglider.daemon.monitor.process import MonitorSpec
from paraglider.daemon.workers.proxy_worker import ProxySpec
from paraglider.daemon.workers.worker import WorkerSpec
from paraglider.errors import OperatorError
from paraglider.host import checks
from paraglider.netfilter.rules.steering import worker_queues

CORE = min(os.sched_getaffinity(0))
WEB4 = {
    "name": "web",
    "vip": "192.168.0.11/24",
    "protocol": "tcp",
    "ports": 80,
    "backends": ["10.0.0.1"],
}
WEB6 = {**WEB4, "name": "web6", "vip": "2001:db8::11/64", "backends": ["fd00:10::1"]}


class Started:
    """The recorded start: the processes, and the order of calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.specs: list[WorkerSpec | HttpSpec] = []
        self.socket: Any = None
        self.debug: bool | None = None
        self.log_style = ""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Root and free queues; a supervisor that only notes its workers."""
    notes = Started()

    class Supervisor:
        def __init__(self, specs: list[WorkerSpec | HttpSpec], *_: Any) -> None:
            notes.specs = [s for s in specs if not s.idle and s.role != "host helper"]

        def run(self) -> int:
            notes.calls.append("supervise")
            notes.socket = Path(notes.specs[-1].control._listening.getsockname()).lstat()
            return 0

    def set_up(debug: bool, style: str) -> None:
        notes.debug, notes.log_style = debug, style

    def limit(*_: int) -> None:
        notes.calls.append("limit")

    def require_free(cores: tuple[int, ...]) -> None:
        notes.calls.append(f"free {cores}")

    monkeypatch.setattr(checks.os, "geteuid", lambda: 0)
    monkeypatch.setattr(command, "Supervisor", Supervisor)
    monkeypatch.setattr(command.privileges, "limit_parent", limit)
    monkeypatch.setattr(command, "require_free", require_free)
    monkeypatch.setattr(command.log, "set_up", set_up)
    with structlog.testing.capture_logs():
        yield notes


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """A function that writes a configuration and returns its path."""

    def write(*services: dict[str, Any], **top: Any) -> str:
        path = tmp_path / "paraglider.conf"
        document = {
            "workers": {"first_core": CORE, "last_core": CORE},
            "chroot": str(tmp_path),
            "control": {"socket": str(tmp_path / "run" / "control.sock")},
            **top,
            "services": list(services or (WEB4, WEB6)),
        }
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return str(path)

    return write


def outcome(*arguments: str) -> Any:
    """The exit code of `paraglider` with ``arguments``."""
    with pytest.raises(SystemExit) as caught:
        run_command(main, "paraglider", arguments)
    return caught.value.code


def message(capsys: pytest.CaptureFixture[str]) -> str:
    """The output on standard error: one line and no traceback."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_what_asks_the_dns_is_imported_where_it_is_asked() -> None:
    """Most files list their backends themselves."""
    program = "import sys, paraglider.cli.run; print(sorted({'dns'} & {*sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_starts_a_worker_a_core(started: Started, file: Any) -> None:
    """Queues are checked, privileges limited, then the workers supervised, in that order."""
    assert outcome("-c", file()) == 0
    assert started.calls == [f"free {worker_queues(CORE)}", "limit", "supervise"]
    spec, _ = started.specs
    nobody = pwd.getpwnam("nobody")
    assert (spec.index, spec.core, spec.uid, spec.gid) == (0, CORE, nobody.pw_uid, nobody.pw_gid)
    assert [service.name for service in spec.config.services] == ["web", "web6"]
    assert started.debug is False


def test_workers_have_journals(started: Started, file: Any) -> None:
    """Each has the files of its journals, with room for its most flows."""
    assert outcome("-c", file(flows={"max": 123})) == 0
    spec, _ = started.specs
    assert spec.journals is not None
    assert (spec.journals.core, spec.journals.records) == (CORE, 123)


def test_the_control_socket(started: Started, file: Any, tmp_path: Path) -> None:
    """It exists while the processes run, only its owner may use it, in a directory that all can
    read.
    """
    assert outcome("-c", file()) == 0
    _, spec = started.specs
    assert isinstance(spec, HttpSpec)
    assert (spec.role, spec.control._owner) == ("http", 0)
    assert stat.S_IMODE(started.socket.st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    assert list((tmp_path / "run").iterdir()) == []


def test_options_go_before_the_file(started: Started, file: Any) -> None:
    """``-Q``, ``-U`` and ``-D`` take precedence over the file."""
    path = file(user="nobody", queue={"length": 100})
    assert outcome("-c", path, "-Q", "2000", "-U", "root", "-D", "--log", "text") == 0
    spec, _ = started.specs
    assert spec.config.queue.length == 2000
    assert (spec.uid, spec.gid) == (0, 0)
    assert started.debug is True
    assert started.log_style == "text"


@pytest.mark.parametrize(("option", "name"), [("-4", "web"), ("-6", "web6")])
def test_one_family(started: Started, file: Any, option: str, name: str) -> None:
    """``-4`` and ``-6`` leave the services of the other family out."""
    assert outcome("-c", file(), option) == 0
    spec, _ = started.specs
    assert [service.name for service in spec.config.services] == [name]


@pytest.mark.parametrize(("option", "service"), [("-4", WEB6), ("-6", WEB4)])
def test_no_service_of_the_family(
    started: Started, file: Any, capsys: Any, option: str, service: dict[str, Any]
) -> None:
    """A family without a service is a mistake; the message names the file and the way out."""
    path = file(service)
    assert outcome("-c", path, option) == 1
    line = message(capsys)
    assert f"{path} has no IPv{option[1]} service" in line
    assert "leave -4 and -6 out" in line
    assert started.calls == []


def test_not_root(
    started: Started, file: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without root: one line, and nothing is started."""
    monkeypatch.setattr(checks.os, "geteuid", lambda: 1000)
    assert outcome("-c", file()) == 1
    line = message(capsys)
    assert line.startswith("paraglider: paraglider needs root")
    assert "run it as root: " in line
    assert started.calls == []


def test_unknown_user(started: Started, file: Any, capsys: Any) -> None:
    """A user that does not exist is named, from the file or from ``-U``."""
    assert outcome("-c", file(user="no-such-user")) == 1
    assert "no user 'no-such-user'" in message(capsys)
    assert outcome("-c", file(), "-U", "nor-this-one") == 1
    assert "no user 'nor-this-one'" in message(capsys)
    assert started.calls == []


def test_missing_chroot(started: Started, file: Any, capsys: Any, tmp_path: Path) -> None:
    """A chroot directory that is not there is named with the way to make it."""
    assert outcome("-c", file(chroot=str(tmp_path / "gone"))) == 1
    line = message(capsys)
    assert f"{tmp_path / 'gone'} does not exist" in line
    assert "mkdir" in line
    assert started.calls == []


def test_chroot_that_is_a_file(started: Started, file: Any, capsys: Any) -> None:
    """A chroot that is no directory is refused."""
    path = file()
    Path(path).write_text(Path(path).read_text().replace(str(Path(path).parent), path))
    assert outcome("-c", path) == 1
    assert "not a directory" in message(capsys)
    assert started.calls == []


def test_a_core_that_is_none(started: Started, file: Any, capsys: Any) -> None:
    """A core that this process may not run on is refused with those it may."""
    path = file(workers={"first_core": CORE, "last_core": 4095})
    assert outcome("-c", path) == 1
    line = message(capsys)
    assert "4095" in line
    assert "choose from" in line
    assert started.calls == []


@pytest.fixture
def proxied() -> dict[str, Any]:
    """A proxy service at a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {**WEB4, "vip": "192.0.2.11/24", "ports": port, "forward": "proxy"}


def forsake(specs: list[Any]) -> None:
    """Close the listening sockets."""
    for spec in specs:
        spec.release()


def test_proxies_need_no_queue(started: Started, file: Any, proxied: Any) -> None:
    """With proxy services only: one proxy worker per core, bound before privileges are dropped."""
    assert outcome("-c", file(proxied)) == 0
    spec, _ = started.specs
    assert isinstance(spec, ProxySpec)
    assert (spec.core, spec.number, spec.index) == (CORE, 0, 0)
    assert [listener.service for listener in spec.listeners] == ["web"]
    assert spec.listeners[0].socket.getsockname() == ("192.0.2.11", proxied["ports"])
    assert started.calls == ["limit", "supervise"]
    forsake(started.specs)


def test_proxies_beside_others(started: Started, file: Any, proxied: Any) -> None:
    """Each kind of worker has its own services, and indices are unique."""
    assert outcome("-c", file(proxied, WEB6)) == 0
    queue, proxy, _ = started.specs
    assert isinstance(proxy, ProxySpec)
    assert [service.name for service in queue.config.services] == ["web6"]
    assert [service.name for service in proxy.config.services] == ["web"]
    assert [queue.index, proxy.index] == [0, 1]
    assert started.calls == [f"free {worker_queues(CORE)}", "limit", "supervise"]
    forsake(started.specs)


def test_a_port_in_use(started: Started, file: Any, capsys: Any, proxied: Any) -> None:
    """One line that names the service, and nothing is started."""
    with socket.create_server(("", proxied["ports"])):
        assert outcome("-c", file(proxied)) == 1
    assert f"service `web`: 192.0.2.11:{proxied['ports']} is in use by " in message(capsys)
    assert started.calls == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "top", "check", "scope"),
    [
        ((), {}, None, False),
        ((), {}, {"type": "tcp"}, False),
        (("-f",), {}, None, True),
        ((), {"failover": {"enabled": True}}, None, True),
    ],
)
def test_the_monitor(
    started: Started, file: Any, options: Any, top: Any, check: Any, scope: bool
) -> None:
    """There is one where a service is checked or failover is on, locked in like a worker."""
    services = (WEB4, {**WEB6, "check": check} if check else WEB6)
    assert outcome("-c", file(*services, **top), *options) == 0
    monitors = [spec for spec in started.specs if isinstance(spec, MonitorSpec)]
    assert len(monitors) == bool(check or scope)
    for spec in monitors:
        assert spec.index == started.specs.index(spec)
        assert spec.chroot == started.specs[0].config.chroot
        assert started.specs[0].config.failover.enabled is scope
        spec.release()


def test_a_queue_with_a_reader(
    started: Started, file: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that another process reads is refused before privileges go."""

    def taken(_cores: tuple[int, ...]) -> None:
        raise OperatorError("queue 0 already has a reader: process 7 (x)", "stop it")

    monkeypatch.setattr(command, "require_free", taken)
    assert outcome("-c", file()) == 1
    assert message(capsys) == "paraglider: queue 0 already has a reader: process 7 (x); stop it"
    assert started.calls == []


def test_the_workers_of_a_dead_daemon_are_waited_for(
    started: Started, file: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their queues are asked for again until they are free, or for some seconds."""
    asked: list[tuple[int, ...]] = []

    def taken(queues: tuple[int, ...]) -> None:
        asked.append(queues)
        if len(asked) != 3:
            raise OperatorError("queue 0 already has a reader", "stop it")

    monkeypatch.setattr(command, "require_free", taken)
    monkeypatch.setattr(command, "orphans", lambda: True)
    assert outcome("-c", file()) == 0
    assert asked == [worker_queues(CORE)] * 3
    monkeypatch.setattr(command, "ENDING", 0.1)
    assert outcome("-c", file()) == 1
    assert message(capsys) == "paraglider: queue 0 already has a reader; stop it"


def test_no_file(started: Started, capsys: Any, tmp_path: Path) -> None:
    """A file that is not there: its name, exit code 1."""
    assert outcome("-c", str(tmp_path / "none.conf")) == 1
    assert "none.conf" in message(capsys)
    assert started.calls == []


def test_a_broken_file(started: Started, capsys: Any, tmp_path: Path) -> None:
    """A file that is no YAML: line and column, exit code 1."""
    path = tmp_path / "broken.conf"
    path.write_text("services: [\n")
    assert outcome("-c", str(path)) == 1
    assert message(capsys).startswith(f"{path}:")
    assert started.calls == []


def test_warnings_are_logged(started: Started, file: Any) -> None:
    """They are logged, and the daemon starts."""
    with structlog.testing.capture_logs() as logs:
        assert outcome("-c", file(timeouts={"established": 60})) == 0
    (line,) = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert "`established` of 60 s" in line
    assert started.calls[-1] == "supervise"


def test_where_the_kernel_balances_alone_the_daemon_refuses(
    started: Started, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are no queues for it then; it names the way out, before it starts anything."""
    monkeypatch.setattr(command, "owner_of", lambda _: "paraglider start")
    with pytest.raises(OperatorError, match=r"first run (sudo )?paraglider stop, then"):
        main.main(["-c", file(WEB4)], standalone_mode=False)
    assert started.calls == []

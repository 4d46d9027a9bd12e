"""Fixtures of the command tests: a host, a file, a snapshot of the host; a fake daemon."""

from __future__ import annotations

import json
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from waiting import await_connected

from paraglider.cli.errors import run_command
from paraglider.cli.main import main
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import new_prefix

NETWORK = {
    "public": {"interface": "eth0"},
    "private": {"interface": "eth1", "gateway": ["10.0.0.254/8", "fd00:10::fe/64"]},
}
SNAPSHOT = """\
import subprocess
from pathlib import Path
for command in ("iptables-save", "ip6tables-save", "nft list ruleset", "ip -4 address",
                "ip -6 address", "ip -4 route show table all", "ip neighbour show nud permanent"):
    print(command)
    said = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    print("".join(line for line in said.splitlines(True) if not line.startswith("#")))
for file in ["/proc/sys/net/ipv4/ip_forward", *Path("/proc/sys/net").glob("ipv[46]/conf/*/*")]:
    if Path(file).name != "stable_secret":
        print(file, Path(file).read_text().strip())
"""


@pytest.fixture(autouse=True)
def nobody_at_the_default_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A file without a control socket leads to one where no daemon of another test listens."""
    path = str(tmp_path / "default.sock")
    for module in ("daemon.http.client", "cli.common_options"):
        monkeypatch.setattr(f"paraglider.{module}.CONTROL_SOCKET", path)
    return path


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A namespace with eth0 and eth1, to which another one answers as both backends."""
    prefix = new_prefix()
    with Namespace(f"{prefix}-host") as namespace, Namespace(f"{prefix}-peer") as peer:
        for name in ("eth0", "eth1"):
            namespace.ip(f"link add {name} type veth peer name {name} netns {peer.name}")
            namespace.ip(f"link set {name} up")
            peer.ip(f"link set {name} up")
        peer.ip(*(f"addr add {a} dev eth1" for a in ("10.0.0.1/8", "10.0.0.2/8", "fd00:10::1/64")))
        for each in (namespace, peer):
            await_connected(each, "eth0", "eth1")
        yield namespace


@pytest.fixture
def snapshot(host: Namespace) -> Callable[[], str]:
    """A function that gives all that undoing promises to leave as it was."""
    return lambda: host.run([sys.executable, "-c", SNAPSHOT]).stdout


@pytest.fixture
def foreign(host: Namespace) -> None:
    """The host is lived in: rules, policies, tables, addresses, neighbours and odd sysctls."""
    host.run(["iptables", "-t", "mangle", "-A", "PREROUTING", "-i", "eth9", "-j", "ACCEPT"])
    host.run(["iptables", "-P", "FORWARD", "DROP"])
    host.run(["ip6tables", "-N", "THEIRS"])
    host.run(["nft", "add table inet theirs"])
    host.ip("addr add 192.168.0.1/24 dev eth0", "addr add 10.0.0.254/8 dev eth1")
    host.ip("neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev eth1 nud permanent")
    host.sysctl("net.ipv4.conf.eth0.forwarding=1", "net.ipv4.conf.all.accept_redirects=0")
    host.sysctl("net.ipv4.conf.eth1.send_redirects=0", "net.ipv6.conf.eth0.accept_ra=0")


@pytest.fixture
def web() -> dict[str, Any]:
    """An IPv4 service of the default file."""
    return {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}


@pytest.fixture
def six() -> dict[str, Any]:
    """An IPv6 service of the default file."""
    return {"name": "six", "vip": "2001:db8::11/64", "protocol": "any", "backends": ["fd00:10::1"]}


@pytest.fixture
def write(tmp_path: Path, web: dict[str, Any], six: dict[str, Any]) -> Callable[..., str]:
    """A function that writes a configuration file and gives its path."""

    def write_file(*services: dict[str, Any], **top: Any) -> str:
        (tmp_path / "empty").mkdir(exist_ok=True)
        content = {"chroot": str(tmp_path / "empty"), "network": NETWORK, **top}
        file = tmp_path / "paraglider.conf"
        file.write_text(yaml.safe_dump({**content, "services": list(services or (web, six))}))
        return str(file)

    return write_file


@pytest.fixture
def run_in(host: Namespace) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a module in the host and checks its exit code; no traceback."""

    def run(module: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = host.run([sys.executable, "-m", module, *arguments], check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


class Daemon(socketserver.UnixStreamServer):
    """A fake control socket: ``answers`` has (status, JSON) by path; ``asked`` are the received
    requests: method, target, body. ``file`` is a configuration with this socket.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(f"{directory}/control.sock", _Answering)
        self.file = f"{directory}/paraglider.conf"
        Path(self.file).write_text(f"control: {{socket: {self.server_address!s}}}\n")
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []


class _Answering(BaseHTTPRequestHandler):
    server: Daemon

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        self.server.asked.append((self.command, self.path, body))
        missing = (404, {"error": "not found", "remedy": ""})
        status, answer = self.server.answers.get(self.path.partition("?")[0], missing)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon with the test's answers."""
    directory = tempfile.mkdtemp()  # pytest's own is too long a path for a socket
    with Daemon(directory) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()
    shutil.rmtree(directory)


@pytest.fixture
def say(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[object, str, str]]:
    """A function that runs `paraglider` with arguments against ``daemon``, on paper ``width``
    columns wide: exit code, standard output and standard error.
    """

    def run(*arguments: str, width: int = 200) -> tuple[object, str, str]:
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as caught:
            run_command(main, "paraglider", ["-c", daemon.file, *arguments])
        said = capsys.readouterr()
        return caught.value.code, said.out, said.err

    return run

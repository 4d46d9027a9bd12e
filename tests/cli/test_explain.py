"""Tests of ``paraglider.cli.explain``: arguments, files, output, exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from paraglider.cli import explain as module
from paraglider.cli.errors import run_command
from paraglider.cli.main import main
from paraglider.daemon.http.client import ControlClient
from paraglider.errors import OperatorError

TEXT = """\
services:
  - name: web
    vip: 192.168.0.11
    protocol: tcp
    ports: 80
    strategy: maglev
    seed: 7
    backends: [10.0.0.1, 10.0.0.2, 10.0.0.3]
  - name: six
    vip: 2001:db8::11
    protocol: any
    backends: ["fd00::1", "fd00::2"]
"""
CLIENT, VIP = "192.0.2.7:40000", "192.168.0.11:80"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file, whose daemon no other test runs."""
    path = tmp_path / "c"
    path.write_text(f"{TEXT}control: {{socket: {tmp_path / 'control.sock'}}}\n")
    return path


def outcome(*arguments: str) -> Any:
    """The exit code of `paraglider explain` with ``arguments``."""
    with pytest.raises(SystemExit) as caught:
        run_command(main, "paraglider", ("explain", *arguments))
    return caught.value.code


def data(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The output of `paraglider explain --json`."""
    assert outcome(*arguments, "--json") == 0
    return json.loads(capfd.readouterr().out)


def test_a_flow_in_words_and_as_data(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """Both forms have the same service, backend and reason."""
    (flow,) = data(capfd, "-c", str(file), "tcp", CLIENT, VIP)["flows"]
    assert flow["service"] == "web"
    assert [step["about"] for step in flow["why"]] == [
        "service", "state", "strategy", "adoption",
    ]  # fmt: skip
    assert outcome("-c", str(file), "tcp", CLIENT, VIP) == 0
    first, second, *rest = capfd.readouterr().out.splitlines()
    assert first == f"tcp {CLIENT} → {VIP}"
    assert second == f"  backend   {flow['backend']}"
    assert rest[-1] == f"  adoption  {flow['why'][-1]['text']}"


def test_options_before_the_command(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """-c and -6 may stand before `explain`, as before every command."""
    with pytest.raises(SystemExit) as caught:
        run_command(main, "paraglider", ["-c", str(file), "-6", "explain", "tcp", CLIENT, VIP])
    assert caught.value.code == 0
    assert "no service has the VIP 192.168.0.11" in capfd.readouterr().out


def test_a_route(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """By the name and the protocols of the command line."""
    file = tmp_path / "c"
    route = '[{sni: "*.a.example", alpn: h2, name: r, backends: [10.0.0.4]}]'
    one, _, _ = TEXT.partition("  - name: six")
    file.write_text(f"{one}    forward: proxy\n    route: {route}\n")
    for options, expected in [
        (["--sni", "X.a.example.", "--alpn", "h3", "--alpn", "h2"], "r"),
        (["--sni", "x.a.example"], "web"),
        ([], "web"),
    ]:
        (flow,) = data(capfd, "--offline", "-c", str(file), *options, "tcp", CLIENT, VIP)["flows"]
        assert (flow["service"], flow["why"][0]["about"]) == (expected, "route")


@pytest.mark.parametrize("client", ["2001:db8::7", "[2001:db8::7]:9"])
def test_echo(capfd: pytest.CaptureFixture[str], file: Path, client: str) -> None:
    """An echo is given by addresses; its identifier may be given as the port."""
    (flow,) = data(capfd, "-c", str(file), "icmp", client, "2001:db8::11")["flows"]
    assert (flow["protocol"], flow["service"], flow["backend"]) == ("icmp6", "six", None)
    assert flow["client_port"] == flow["port"] == (9 if "9" in client else 0)
    assert [each["backend"] for each in flow["candidates"]] == ["fd00::1", "fd00::2"]


def test_each_flow_of_a_capture(
    capfd: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    """Every flow of a capture gets the same result as alone."""
    frames = [
        Ether() / IP(src="192.0.2.7", dst="192.168.0.11") / TCP(sport=port, dport=80, flags="S")
        for port in range(40000, 40020)
    ]
    wrpcap(str(tmp_path / "p"), frames)
    found = data(capfd, "-c", str(file), "--pcap", str(tmp_path / "p"))
    assert found["packets"]["to_services"] == 20
    assert {flow["backend"] for flow in found["flows"]} == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    (alone,) = data(capfd, "-c", str(file), "tcp", CLIENT, VIP)["flows"]
    assert found["flows"][0] == {**alone, "packets": 1, "begins": True}


def test_against(capfd: pytest.CaptureFixture[str], file: Path, tmp_path: Path) -> None:
    """Another file is compared by hash space, by the flows of a capture, and by live ones."""
    other = tmp_path / "new"
    changed = TEXT.replace("strategy: maglev", "strategy: maglev\n    decide: auto")
    other.write_text(changed.replace(", 10.0.0.3]", "]"))
    wrpcap(
        str(tmp_path / "p"),
        [Ether() / IP(dst="192.168.0.11") / TCP(sport=port, dport=80) for port in range(300)],
    )
    backends = ("10.0.0.3", "10.0.0.3", "10.0.0.9")
    live = [flow_of(port, backend) for port, backend in enumerate(backends)]
    (tmp_path / "l").write_text(json.dumps({"flows": live, "more": False}))
    arguments = ("-c", str(file), "--against", str(other), "--pcap", str(tmp_path / "p"))
    found = data(capfd, *arguments, "--flows", str(tmp_path / "l"))["against"]
    web, six = found["services"]
    assert web["hash_space"]["moved"] / web["hash_space"]["of"] == pytest.approx(1 / 3, abs=0.02)
    assert web["shares"]["10.0.0.3"]["after"] == 0
    assert six["hash_space"] is None
    assert web["decides"] == {"before": "worker", "after": "kernel"}
    assert six["decides"] == {"before": "worker", "after": "worker"}
    assert found["live"] == {"web": {"flows": 3, "kept": 0, "moved": 0, "lost": 3, "open": 0}}
    seen = found["pcap"]["web"]
    assert seen["flows"] == seen["kept"] + seen["moved"] + seen["lost"] == 300
    assert outcome("-c", str(file), "--against", str(other)) == 0
    printed = capfd.readouterr().out
    assert "of the hash space moves" in printed
    assert "a worker → the kernel decides" in printed


def test_states_of_the_daemon(
    capfd: pytest.CaptureFixture[str], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's states come by standard input, too."""
    state = {"service": "six", "backend": "fd00::1", "state": "maint", "weight": 1}
    content = io.BytesIO(json.dumps([state]).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    asked = ("tcp", "[2001:db8::7]:1", "[2001:db8::11]:1", "--backends", "-")
    (flow,) = data(capfd, "-c", str(file), *asked)["flows"]
    assert flow["backend"] == "fd00::2"
    assert "1 of 2 backends take new flows: fd00::1 is maint" in flow["why"][1]["text"]


def test_backends_listed_elsewhere(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """For a DNS name the error has the remedy: give the backends."""
    file.write_text(TEXT.replace("[10.0.0.1, 10.0.0.2, 10.0.0.3]", "{dns: _web._tcp.example}"))
    (flow,) = data(capfd, "-c", str(file), "tcp", CLIENT, VIP)["flows"]
    assert (flow["service"], flow["backend"]) == ("web", None)
    assert flow["why"][-1]["text"].startswith("its backends come from _web._tcp.example; give")


def flow_of(port: int, backend: str) -> dict[str, Any]:
    """A live flow as the daemon lists it."""
    return {
        "service": "web",
        "protocol": "tcp",
        "client": "192.0.2.7",
        "client_port": port,
        "vip": "192.168.0.11",
        "port": 80,
        "backend": backend,
    }


class Daemon:
    """A daemon with one flow and a backend in maintenance; ``asked`` is the queried socket."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.more = False
        self.why = "`decide: python`"

    def get(self, control: ControlClient, what: str, client: str | None) -> Any:
        """See ``ControlClient.get``."""
        self.asked.append(control.path)
        if control.path != "/run/mine.sock":
            raise OperatorError("no paraglider answers")
        if what == "flows":
            flows = [flow_of(40000, "10.0.0.2")] if client in (None, "192.0.2.7") else []
            return {"flows": flows, "more": self.more}
        if what == "services":
            return [{"service": "web", "decided_by": "python", "why_python": self.why}]
        states = {"10.0.0.1": "maint", "10.0.0.2": "ready", "10.0.0.3": "ready"}
        return [
            {"service": "web", "backend": name, "state": state, "weight": 1}
            for name, state in states.items()
        ]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, file: Path) -> Daemon:
    """A daemon that answers at the socket that ``file`` names."""
    made = Daemon()
    file.write_text("control: {socket: /run/mine.sock}\n" + TEXT)

    def get(control: ControlClient, what: str, client: str | None = None) -> Any:
        return made.get(control, what, client)

    monkeypatch.setattr(ControlClient, "get", get)
    return made


def test_the_daemon_is_asked(capfd: pytest.CaptureFixture[str], file: Path, daemon: Daemon) -> None:
    """A flow that lives keeps its backend, others go by the states as they are."""
    found = data(capfd, "-c", str(file), "tcp", CLIENT, VIP)
    assert found["daemon"] == {"socket": "/run/mine.sock", "flows": 1, "more": False}
    assert found["flows"][0]["backend"] == "10.0.0.2"
    assert found["flows"][0]["why"][-1]["about"] == "flow"
    for port in range(50):
        (flow,) = data(capfd, "-c", str(file), "tcp", f"192.0.2.9:{port + 1}", VIP)["flows"]
        assert flow["backend"] in ("10.0.0.2", "10.0.0.3")
    daemon.more = True
    assert outcome("-c", str(file), "tcp", CLIENT, VIP) == 0
    last = capfd.readouterr().out.splitlines()[-1]
    assert last == ("States and flows are those of the daemon at /run/mine.sock, 1 of its flows.")


def test_what_decides_is_the_daemons_word(
    capfd: pytest.CaptureFixture[str], file: Path, daemon: Daemon
) -> None:
    """Where the file wants the kernel to decide."""
    steps = {}
    for decide in ("auto", "python"):
        file.write_text(
            "control: {socket: /run/mine.sock}\n"
            + TEXT.replace("strategy: maglev", f"strategy: maglev\n    decide: {decide}")
        )
        daemon.why = "no room"
        (flow,) = data(capfd, "-c", str(file), "tcp", "192.0.2.9:1", VIP)["flows"]
        steps[decide] = [step["text"] for step in flow["why"] if step["about"] == "decides"]
    assert steps == {"auto": ["a worker: no room"], "python": []}


def test_the_impact_on_live_flows(
    capfd: pytest.CaptureFixture[str], file: Path, tmp_path: Path, daemon: Daemon
) -> None:
    """With another file, the impact on the daemon's flows is shown."""
    other = tmp_path / "new"
    for left, impact in ((", 10.0.0.2", "lost"), (", 10.0.0.3", "kept")):
        other.write_text(TEXT.replace(left, ""))
        found = data(capfd, "-c", str(file), "--against", str(other))["against"]
        assert found["live"]["web"]["flows"] == found["live"]["web"][impact] == 1


@pytest.mark.parametrize("arguments", [["--offline"], ["--flows", "listing"]])
def test_the_daemon_is_not_asked(
    capfd: pytest.CaptureFixture[str],
    file: Path,
    tmp_path: Path,
    daemon: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    """With --offline, and with its listings as files."""
    monkeypatch.chdir(tmp_path)
    Path("listing").write_text('{"flows": []}')
    found = data(capfd, "-c", str(file), "tcp", CLIENT, VIP, *arguments)
    assert "daemon" not in found
    assert daemon.asked == []


def test_no_daemon_answers(
    capfd: pytest.CaptureFixture[str],
    file: Path,
    daemon: Daemon,
    nobody_at_the_default_socket: str,
) -> None:
    """Only the file is used."""
    file.write_text(TEXT)
    found = data(capfd, "-c", str(file), "tcp", CLIENT, VIP)
    assert "daemon" not in found
    assert daemon.asked == [nobody_at_the_default_socket]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "nothing to explain: give a flow, --pcap or --against"),
        (["tcp", CLIENT], "`tcp 192.0.2.7:40000` is not a flow; write `tcp CLIENT:PORT VIP:PORT`"),
        (["sctp", CLIENT, VIP], "is not a flow; write"),
        (["tcp", "192.0.2.7", VIP], "'192.0.2.7' is no ADDRESS:PORT; write one such as"),
        (
            ["tcp", CLIENT, "[::1]:80"],
            "192.0.2.7 and ::1 are not of the same family; give both over IPv4 or IPv6",
        ),
        (["--pcap", "/nowhere"], "'/nowhere' cannot be read (No such file or directory)"),
        (["--pcap", "/dev/null"], "/dev/null is not a packet capture"),
        (["--pcap", "/proc"], "'/proc' cannot be read (Is a directory)"),
        (["--against", "/nowhere"], "/nowhere: there is no such file"),
        (["tcp", CLIENT, VIP, "--flows", "/nowhere"], "/nowhere: there is no such file"),
        (["tcp", CLIENT, VIP, "--flows", "/dev/zero"], "/dev/zero: this is no regular file"),
        (
            ["tcp", CLIENT, VIP, "--flows", "-", "--backends", "-"],
            "one of --flows and --backends may be standard input",
        ),
    ],
)
def test_mistakes(
    capfd: pytest.CaptureFixture[str], file: Path, arguments: list[str], error: str
) -> None:
    """A mistake is one message on stderr, exit 1."""
    assert outcome("-c", str(file), *arguments) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert error in printed.err


def test_mistakes_in_the_list_of_flows(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """The error has the expected form, and an endless file is not read to its end."""
    flows = file.parent / "flows"
    for size, error in ((0, f"{flows} is no JSON"), (1 << 30, "the file is larger than 10 MB")):
        flows.touch()
        os.truncate(flows, size)
        assert outcome("-c", str(file), "tcp", CLIENT, VIP, "--flows", str(flows)) == 1
        assert error in capfd.readouterr().err


def test_mistake_in_the_file(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    """A file that is wrong is refused as `check` refuses it."""
    file.write_text(TEXT.replace("tcp", "tpc"))
    assert outcome("-c", str(file), "tcp", CLIENT, VIP) == 1
    assert f"{file}:4:15: `protocol`" in capfd.readouterr().err


def test_without_the_seed_no_backend_is_made_up(
    capfd: pytest.CaptureFixture[str], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who cannot read the host's seed gets the candidates; root gets the backend."""
    file.write_text(TEXT.replace("    seed: 7\n", ""))
    monkeypatch.setattr(module, "known_seed", lambda: None)
    (flow,) = data(capfd, "-c", str(file), "tcp", CLIENT, VIP)["flows"]
    assert flow["backend"] is None
    assert len(flow["candidates"]) == 3
    assert "its seed is not known here" in flow["why"][-1]["text"]
    found = set()
    for seed in range(40):
        monkeypatch.setattr(module, "known_seed", lambda seed=seed: seed)
        (flow,) = data(capfd, "-c", str(file), "tcp", CLIENT, VIP)["flows"]
        found.add(flow["backend"])
    assert found == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}  # by chance once in ten million


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_a_terminal_of_any_encoding(file: Path, encoding: str) -> None:
    """Only the arrows depend on the encoding, data does not."""
    command = [sys.executable, "-m", "paraglider", "explain", "-c", str(file), "--offline"]
    words = [*command, "tcp", CLIENT, VIP]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(words, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    arrow = "→" if encoding == "utf-8" else "->"
    assert f"{CLIENT} {arrow} {VIP}" in done.stdout.decode(encoding)
    done = subprocess.run([*words, "--json"], capture_output=True, env=environment)
    assert json.loads(done.stdout.decode(encoding))["flows"]

"""Commands on other hosts: what ssh gets, deadlines, and answers that are none."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paraglider.errors import OperatorError, PlatformError
from paraglider.host.remote import MOST, SSH, Remote, Unreached, failures, node_names

Ssh = Callable[[str], Remote]


@pytest.fixture
def ssh(tmp_path: Path) -> Ssh:
    """A function that makes a program in place of ssh, with the lines of Python that it runs:
    ``node`` is the host and ``command`` what is to be run there.
    """

    def make(body: str, seconds: float = 20.0) -> Remote:
        program = tmp_path / "ssh"
        head = f"#!{sys.executable}\nimport json, os, subprocess, sys, time\n"
        program.write_text(f"{head}node, command = sys.argv[-2:]\n{body}\n")
        program.chmod(0o755)
        return Remote.of(f"{program} -F 'a file'", "sudo -n paraglider", seconds)

    return make


def test_what_is_run(ssh: Ssh) -> None:
    """The words of --ssh, the host, and one word for its shell, with what is to be quoted."""
    found = ssh("print(json.dumps(sys.argv[1:]))").ask(
        ["lb1", "a@lb2"], ["set", "web/[fd00::1]:80"]
    )
    assert list(found) == ["lb1", "a@lb2"]
    command = "sudo -n paraglider set 'web/[fd00::1]:80'"
    assert found["lb1"] == ["-F", "a file", "lb1", command]
    assert shlex.split(command)[-1] == "web/[fd00::1]:80"
    assert found["a@lb2"][2] == "a@lb2"


def test_without_options_nothing_is_asked() -> None:
    """ssh would ask for a password, and several at once."""
    assert Remote.of(None, "paraglider", 10).ssh == SSH
    assert "BatchMode=yes" in SSH


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit('ssh: connect to host lb1 port 22: Connection\\n refused')", "lb1 port 22: Con"),
        ("print('paraglider: a mistake'); sys.exit(3)", "paraglider: a mistake"),
        ("sys.exit(4)", "exit code 4"),
        ("print('Welcome!', '{}')", "no JSON: Welcome! {}"),
        ("print('[' * 100000)", "no JSON: [["),
        ("sys.exit('\\x1b[31mred')", "?[31mred"),
    ],
)
def test_a_host_that_refuses(ssh: Ssh, body: str, why: str) -> None:
    """The reason is one line of printable text."""
    (answer,) = ssh(body).ask(["lb1"], []).values()
    assert isinstance(answer, Unreached)
    assert why in answer.why
    assert answer.why.isprintable()
    assert len(answer.why) < 400
    assert failures({"lb1": answer, "lb2": 3}) == {"lb1": answer.why}


def test_hosts_are_asked_at_once(ssh: Ssh, tmp_path: Path) -> None:
    """Each waits for all others."""
    body = f"""
open({str(tmp_path)!r} + '/' + node, 'w').close()
while not all(os.path.exists({str(tmp_path)!r} + f'/lb{{n}}') for n in range(3)):
    time.sleep(0.01)
print(1)"""
    assert ssh(body).ask(["lb0", "lb1", "lb2"], []) == {"lb0": 1, "lb1": 1, "lb2": 1}


def test_a_host_that_hangs(ssh: Callable[..., Remote], tmp_path: Path) -> None:
    """It delays nobody longer than the deadline, and what it started is ended with it."""
    pids = tmp_path / "pids"
    body = f"""
if node == 'lb2':
    child = subprocess.Popen(['sleep', '60'])
    open({str(pids)!r}, 'w').write(str(child.pid))
    time.sleep(60)
print(1)"""
    began = time.monotonic()
    found = ssh(body, 3.0).ask(["lb1", "lb2"], [])
    assert time.monotonic() - began < 20
    assert found == {"lb1": 1, "lb2": Unreached("no answer within 3 s")}
    child = int(pids.read_text())
    while time.monotonic() - began < 25 and Path(f"/proc/{child}/stat").exists():
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.02)
    else:
        if Path(f"/proc/{child}").exists():
            os.kill(child, signal.SIGKILL)
            pytest.fail("it still runs")


def test_a_shared_connection_that_stays(ssh: Ssh, tmp_path: Path) -> None:
    """It has ssh's output open, and is neither waited for nor ended."""
    pids = tmp_path / "pids"
    body = f"""
child = subprocess.Popen(['sleep', '60'])
open({str(pids)!r}, 'w').write(str(child.pid))
print(1)"""
    began = time.monotonic()
    try:
        assert ssh(body).ask(["lb1"], []) == {"lb1": 1}
        assert time.monotonic() - began < 15
    finally:
        os.kill(int(pids.read_text()), signal.SIGKILL)


def test_a_long_answer(ssh: Ssh, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not kept in memory."""
    monkeypatch.setattr("paraglider.host.remote.LONGEST", 10)
    assert ssh("print(' ' * 9 + '1')").ask(["lb1"], []) == {
        "lb1": Unreached("the answer is too long")
    }
    assert ssh("print('        1')").ask(["lb1"], []) == {"lb1": 1}


def test_no_ssh(tmp_path: Path) -> None:
    """The error has the package; a file that is no program is named."""
    with pytest.raises(OperatorError, match="is missing"):
        Remote.of(str(tmp_path / "none"), "paraglider", 1).ask(["lb1"], [])
    wrong = tmp_path / "wrong"
    wrong.write_text("#!/nonexistent/interpreter\n")
    wrong.chmod(0o755)
    with pytest.raises(PlatformError, match="wrong cannot be run: No such file"):
        Remote.of(str(wrong), "paraglider", 1).ask(["lb1"], [])


@pytest.mark.parametrize(
    "text", ["lb1", "lb1, lb2", "root@lb1,lb-2.example.org", "10.0.0.1,2001:db8::1", "fe80::1%eth0"]
)
def test_names(text: str) -> None:
    """Names and addresses, with users."""
    assert node_names(text) == tuple(name.strip() for name in text.split(","))


@pytest.mark.parametrize(
    "name",
    [
        *("", "-oProxyCommand=reboot", "a@-oProxyCommand=reboot", "-l@lb1", "lb1 reboot", "lb1;id"),
        *("lb1\n", "@lb1", "lb1@", "a@b@c", "$(id)", "lb/1", "ssh://lb1", "lb₁", "x" * 300),
    ],
)
def test_names_that_ssh_would_read_otherwise(name: str) -> None:
    """None can be an option, or more than a name."""
    if name.strip() != name:
        assert node_names(name) == (name.strip(),)
        return
    with pytest.raises(OperatorError, match="no name of a host"):
        node_names(f"lb0,{name}")


def test_names_twice_and_too_many() -> None:
    """Each balancer once, and not more than a screen of them."""
    with pytest.raises(OperatorError, match="lb1 is named twice"):
        node_names("lb1,lb2,lb1")
    assert len(node_names(",".join(f"lb{n}" for n in range(MOST)))) == MOST
    with pytest.raises(OperatorError, match="too many"):
        node_names(",".join(f"lb{n}" for n in range(MOST + 1)))


@pytest.mark.parametrize("text", ["", "  ", "ssh -F 'file"])
def test_a_command_that_is_none(text: str) -> None:
    """Open quotes, or nothing."""
    with pytest.raises(OperatorError, match="--ssh"):
        Remote.of(text, "paraglider", 1)
    with pytest.raises(OperatorError, match="--program"):
        Remote.of(None, text, 1)


def test_the_answer_is_json(ssh: Ssh) -> None:
    """Of any type."""
    given = {"a": [1, None, "ü"]}
    assert ssh(f"print({json.dumps(json.dumps(given))})").ask(["lb1"], []) == {"lb1": given}

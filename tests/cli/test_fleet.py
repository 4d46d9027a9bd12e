"""`paraglider fleet`: what it asks balancers for, what it prints, and its exit codes.

A program of the test stands for ssh: it answers from files, one a balancer, and writes down what it
was asked.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from paraglider.cli.errors import run_command
from paraglider.cli.main import main

SSH = """#!{python}
import json, shlex, sys, time
from pathlib import Path
folder = Path(__file__).parent
node, command = sys.argv[-2:]
words = shlex.split(command)
with (folder / "asked").open("a") as file:
    file.write(json.dumps([node, *words]) + "\\n")
status = json.loads((folder / f"{{node}}.json").read_text())
if isinstance(status, str):
    if status == "hangs":
        time.sleep(60)
    sys.exit(status)
if words[1] == "set":
    name, state = words[3].partition("/")[2], words[5]
    for row in status["backends"]:
        if row["backend"] == name:
            if row.get("refuses"):
                sys.exit("the control socket failed")
            row["state"] = state
    (folder / f"{{node}}.json").write_text(json.dumps(status))
print(json.dumps(status))
"""
SERVICE = {"service": "web", "ready": 2, "backends": 2, "flows": 5, "fingerprint": "00aa"}
STATUS: dict[str, Any] = {
    "services": [{**SERVICE, "return": "direct", "rates": {"conns": 2.0}}],
    "backends": [
        {"service": "web", "backend": f"10.0.0.{n}", "state": "ready", "weight": 1} for n in (1, 2)
    ],
    "node": {"state": "ready"},
    "health": {"status": "healthy"},
    "daemon": {"version": "1.0"},
    "config": {"digests": {"services": "f"}},
}


def with_state(number: int, **changes: Any) -> dict[str, Any]:
    """A status whose backend of that number has ``changes``."""
    rows = [dict(row) for row in STATUS["backends"]]
    rows[number - 1] |= changes
    return {**STATUS, "backends": rows}


class World:
    """Balancers that answer what the test gives."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys
        self.ssh = folder / "ssh"
        self.ssh.write_text(SSH.format(python=sys.executable))
        self.ssh.chmod(0o755)

    def run(self, command: str, *words: str, **nodes: Any) -> tuple[object, str, str]:
        """Run `paraglider fleet` for ``nodes``: exit code, standard output, standard error."""
        for node, status in nodes.items():
            (self._folder / f"{node}.json").write_text(json.dumps(status))
        given = ("--nodes", ",".join(nodes), "--ssh", f"{self.ssh} -x")
        with pytest.raises(SystemExit) as caught:
            run_command(main, "paraglider", ["fleet", command, *given, *words])
        said = self._capsys.readouterr()
        return caught.value.code, said.out, said.err

    def asked(self) -> list[list[str]]:
        """What ssh was asked, without the statuses: the balancer and the words."""
        file = self._folder / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        return [words for words in map(json.loads, lines) if words[2] != "top"]

    def state(self, node: str) -> str:
        """The state of the first backend at ``node``."""
        rows = json.loads((self._folder / f"{node}.json").read_text())["backends"]
        return str(rows[0]["state"])


@pytest.fixture
def world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> World:
    """No balancer yet."""
    monkeypatch.setenv("COLUMNS", "200")
    return World(tmp_path, capsys)


def test_show(world: World) -> None:
    """A line for each service at each balancer, what differs is marked; a silent one is a row."""
    odd = with_state(2, state="down")
    code, out, err = world.run(
        *("show", "--timeout", "15"), lb1=STATUS, lb2=odd, lb3=STATUS, lb4="ssh: refused"
    )
    assert (code, err) == (1, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:3] == ["Service", "Node", "Health"]
    assert lines[1] == ["web", "lb1", "healthy", "1.0", "-", "2/2", "5", "2.0", "00aa"]
    assert lines[2][-3:] == ["!", "10.0.0.2", "down"]
    assert lines[3][:2] == ["web", "lb3"]
    assert lines[4][:2] == ["-", "lb4"]
    assert lines[4][-3:] == ["!", "ssh:", "refused"]


def test_show_for_programs(world: World) -> None:
    """The same as data; balancers that differ are no failure."""
    code, out, _ = world.run(
        "show", "--json", lb1=STATUS, lb2={**STATUS, "node": {"state": "drain"}}
    )
    found = json.loads(out)
    assert code == 0
    assert [row["draining"] for row in found["nodes"]] == [False, True]
    assert [row["differs"] for row in found["services"]] == [[], ["drained"]]
    assert found["services"][0]["fingerprint"] == "00aa"


def test_a_balancer_that_hangs(world: World) -> None:
    """The others are shown, and the exit code is 1."""
    code, out, _ = world.run("show", "--timeout", "6", lb1=STATUS, lb2="hangs")
    assert code == 1
    assert "web      lb1" in out
    assert "no answer within 6 s" in out


def test_check(world: World) -> None:
    """Whether they agree is the exit code."""
    assert world.run("check", lb1=STATUS, lb2=STATUS) == (0, "2 balancers agree\n", "")
    older = {**STATUS, "daemon": {"version": "0.9"}}
    code, out, _ = world.run("check", lb1=STATUS, lb2=older, lb3="refused")
    assert (code, out.splitlines()) == (
        1,
        ["lb3: refused", "version: 1.0 on lb1; 0.9 on lb2; upgrade one balancer after the other"],
    )
    code, out, _ = world.run("check", "--json", lb1=STATUS, lb2=older)
    assert code == 1
    (finding,) = json.loads(out)["findings"]
    assert finding["values"] == {"lb1": "1.0", "lb2": "0.9"}
    assert json.loads(out)["agree"] is False


def test_a_change_is_made_at_each(world: World) -> None:
    """In the order of the names, by the command that one balancer has for it."""
    code, out, err = world.run("drain", "web", "10.0.0.1", lb1=STATUS, lb2=STATUS)
    assert (code, out, err) == (0, "lb1: web/10.0.0.1 drain\nlb2: web/10.0.0.1 drain\n", "")
    words = ["paraglider", "set", "backend", "web/10.0.0.1", "state", "drain", "--json"]
    assert world.asked() == [["lb1", *words], ["lb2", *words]]
    for state in ("maint", "ready"):
        draining = with_state(1, state="drain")
        code, out, _ = world.run(state, "web", "10.0.0.1", "--json", lb1=draining, lb2=draining)
        assert code == 0
        assert [row["error"] for row in json.loads(out)["nodes"]] == [None, None]
        assert [world.state(node) for node in ("lb1", "lb2")] == [state, state]


def test_two_backends_at_a_time(world: World) -> None:
    """Refused before anything is changed; --force does it."""
    nodes = {"lb1": STATUS, "lb2": with_state(2, state="drain")}
    code, out, err = world.run("drain", "web", "10.0.0.1", **nodes)
    assert (code, out) == (1, "")
    assert "10.0.0.2 of web drains at lb2" in err
    assert world.asked() == []
    assert world.run("drain", "web", "10.0.0.1", "--force", **nodes)[0] == 0
    assert [world.state(node) for node in nodes] == ["drain", "drain"]


def test_a_balancer_that_does_not_answer(world: World) -> None:
    """Refused, since the others would differ from it; with --force the others are changed."""
    nodes = {"lb1": "refused", "lb2": STATUS}
    code, out, err = world.run("drain", "web", "10.0.0.1", **nodes)
    assert (code, out, world.asked()) == (1, "", [])
    assert "lb1: refused; nothing was changed" in err
    code, out, _ = world.run("drain", "web", "10.0.0.1", "--force", **nodes)
    assert code == 1
    assert out.splitlines() == [
        "lb1: refused",
        "lb2: web/10.0.0.1 drain",
        "the balancers do not agree now: see `paraglider fleet show`",
    ]


def test_a_change_that_fails_half_way(world: World) -> None:
    """It goes no further, and says who has it."""
    nodes = {"lb1": STATUS, "lb2": with_state(1, refuses=True), "lb3": STATUS}
    code, out, _ = world.run("drain", "web", "10.0.0.1", **nodes)
    assert (code, out.splitlines()) == (
        1,
        [
            "lb1: web/10.0.0.1 drain",
            "lb2: the control socket failed",
            "not tried: lb3",
            "the balancers do not agree now: see `paraglider fleet show`",
        ],
    )
    assert [world.state(node) for node in nodes] == ["drain", "ready", "ready"]


def test_names_that_are_none(world: World) -> None:
    """No ssh is started."""
    code, _, err = world.run("show", lb1=STATUS, **{"-oProxyCommand=reboot": "x"})
    assert code == 1
    assert "no name of a host" in err
    assert world.asked() == []

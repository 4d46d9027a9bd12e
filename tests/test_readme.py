"""The README's configuration of ten lines and its walk-through work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from waiting import TIMEOUT, wait_until

from paraglider.cli.main import main
from paraglider.cli.setup_host import setup_host
from paraglider.lab import namespace
from paraglider.lab.balancer import READY, STOP_TIMEOUT
from paraglider.lab.topology import new_prefix

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv" / "bin"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def configuration() -> str:
    """The ten-line configuration."""
    match = re.search(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def step(name: str) -> str:
    """The commands of one step of the walk."""
    match = re.search(
        rf"^<!-- walk: {name} -->\n```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL
    )
    assert match is not None, name
    return match[1]


def test_the_configuration_has_ten_lines_and_is_valid(tmp_path: Path) -> None:
    """The configuration has ten lines, and ``paraglider check`` accepts it."""
    assert len(configuration().splitlines()) == 10
    file = tmp_path / "paraglider.conf"
    file.write_text(configuration(), encoding="utf-8")
    done = subprocess.run(
        [str(BIN / "paraglider"), "check", "-c", str(file)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_options_shown_exist() -> None:
    """Each option in the table of commands exists."""
    for line in re.findall(r"^\| `(paraglider[^`]*)`", README, re.MULTILINE):
        words = line.split("[")[0].split()
        command = [word for word in words if word.replace("-", "").islower()]
        of_host = line.startswith("paraglider.config")
        arguments = ["--help"] if of_host else [*command[1:], "--help"]
        done = CliRunner().invoke(setup_host if of_host else main, arguments)
        assert done.exit_code == 0, (line, done.output)
        for option in re.findall(r"\[(--?[\w-]+)", line):
            assert option in done.output, (line, option)


class Walk:
    """The walk of the README, with namespaces and a directory of this test's own."""

    def __init__(self, directory: Path) -> None:
        self.prefix = new_prefix()
        self.directory = directory / "glide"
        self.log = directory / "log"
        path = f"{BIN}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}

    def command(self, text: str) -> list[str]:
        """``bash`` with the commands, moved to this test's names."""
        text = text.replace("glide-", f"{self.prefix}-").replace("/tmp/glide", str(self.directory))
        return ["bash", "-euo", "pipefail", "-c", text]

    def take(self, name: str) -> str:
        """Paste one step; returns its output."""
        done = subprocess.run(
            self.command(step(name)),
            cwd=ROOT if name == "place" else self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, (name, done.stdout, done.stderr)
        return done.stdout

    def balance(self) -> subprocess.Popen[bytes]:
        """Set up and balance, in the balancer's namespace; returns once it is ready."""
        match = re.search(r"^ip netns exec glide-balancer bash\n(.*)$", README, re.MULTILINE)
        assert match is not None
        commands = match[1].replace("sudo ", "").replace("&& paraglider", "&& exec paraglider")
        with self.log.open("wb") as log:
            shell = subprocess.Popen(
                ["ip", "netns", "exec", f"{self.prefix}-balancer", *self.command(commands)],
                cwd=self.directory,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(
            lambda: READY.search(self.log.read_text()) or shell.poll() is not None,
            self.log.read_text,
        )
        assert shell.poll() is None, self.log.read_text()
        return shell


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """A walk that leaves nothing behind, wherever it ends."""
    made = Walk(tmp_path)
    yield made
    balancer = f"{made.prefix}-balancer"
    if balancer in namespace.names():
        namespace.end_processes(balancer)
        undo = [str(BIN / "paraglider.config"), "--undo"]
        namespace.Namespace(balancer, attach=True).run(undo, check=False)
    namespace.remove_all(made.prefix)


@pytest.mark.root
def test_the_walk_by_hand(walk: Walk) -> None:
    """Pasted step by step, thirty requests go 10/10/10 in both families, and wrk sees no error."""
    for name in ("place", "network", "backends"):
        walk.take(name)
    balancing = walk.balance()
    shares = [tuple(line.split()) for line in walk.take("ask").splitlines()]
    assert shares == [("10", f"backend{n}") for n in (1, 2, 3)] * 2
    load = walk.take("load")
    assert load.count("Requests/sec") == 2
    assert "Socket errors" not in load
    assert "Non-2xx" not in load
    balancing.send_signal(signal.SIGINT)
    assert balancing.wait(STOP_TIMEOUT) == 0, walk.log.read_text()
    walk.take("away")
    assert not walk.directory.exists()
    assert not [name for name in namespace.names() if name.startswith(f"{walk.prefix}-")]

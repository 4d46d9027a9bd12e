"""Every command in a document: run here, run by another test, or listed with a reason.

A command is a line of a fenced block of `sh`, a line after ``$`` of one of `console` (the following
lines are its expected output, ``...`` matches anything), or, below ``<!-- run: column 2 -->``, the
text in ticks in that column of a table. They are pasted into a shell in the namespace of the
balancer of a network: ``paraglider`` without a command, which would not end, until it is ready.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import prctl
import pytest
import yaml
from waiting import wait_until

from paraglider.host.seccomp import ROLES
from paraglider.lab.balancer import READY, STOP_TIMEOUT, start_backend
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import GATEWAY, VIP, Plan, Topology, backend_address

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv" / "bin"
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
FENCED = re.compile(r"^```(sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^<!-- run: column (\d) -->\n(.*?)\n\n", re.MULTILINE | re.DOTALL)
DAEMON = re.compile(r"paraglider( -\S+ \S+)*")  # options alone: it balances

WALK = "tests/test_readme.py::test_the_walk_by_hand"
#: page → how a block begins → the test that runs it, or why none does
NOT_HERE = {
    "README.md": {
        "sudo scripts/demo": "tests/net/test_lab.py::test_the_lab_shows_every_backend",
        "sudo ./paraglider.config": WALK,
        "clone=$PWD": WALK,
        "for ns in client": WALK,
        "for n in 1 2 3; do": WALK,
        "ip netns exec glide-": WALK,
        "for i in $(seq 30)": WALK,
    },
    "CONTRIBUTING.md": {
        "sudo scripts/bootstrap --test": "it has made what this test runs in",
        "scripts/lint": "it runs beside this test",
        "sudo scripts/test": "it runs this test",
    },
    "docs/carrier.md": {
        "paraglider carrier": "tests/net/test_carrier_life.py::test_flows_need_no_daemon",
    },
    "docs/control.md": {
        "paraglider announce --exabgp": "tests/cli/test_announce.py::test_a_dry_run",
    },
    "docs/direct.md": {
        "#!/bin/sh": "tests/test_docs_direct.py::test_the_script_that_is_shown_is_printed",
    },
    "docs/dsr.md": {
        "sysctl -w net.ipv4.neigh.": (
            "tests/test_docs_dsr.py::test_the_commands_that_are_shown_are_printed"
        ),
        "sysctl -w net.ipv4.conf.": "tests/test_docs_dsr.py::test_what_a_backend_gets_is_printed",
    },
    "docs/fleet.md": {
        "paraglider fleet show": "tests/cli/test_fleet.py::test_show",
    },
    "docs/import.md": {
        "paraglider import": "tests/cli/test_import_.py::test_output_is_a_configuration_file",
    },
    "docs/operations.md": {
        "sudo apt install": "tests/net/test_packages.py::test_installed_run_removed",
        "sysctl -w net.netfilter.nf_conntrack_max": "for the whole machine, not for a namespace",
        "$ paraglider explain -c paraglider.conf --against": (
            "tests/cli/test_explain.py::test_against"
        ),
    },
    "docs/performance.md": {
        "sudo scripts/bench": "it takes a quarter of an hour; tests/bench/ runs its parts",
    },
    "docs/policies.md": {
        "sudo paraglider check": "tests/test_docs_policies.py::test_the_command",
    },
    "docs/stats.md": {
        "sudo cat /run/paraglider/stats.token": (
            "tests/net/test_stats.py::test_changes_need_the_token"
        ),
        "(umask 077;": "it would leave a file in /etc",
    },
    "docs/tunnel.md": {
        "ip link add name ipip": (
            "tests/test_docs_tunnel.py::test_the_commands_of_the_devices_are_printed"
        ),
        "sudo paraglider backend-setup web": "tests/net/test_tunnel.py::test_long_transfers",
    },
    "docs/static.md": {
        "$ sudo paraglider show": "tests/net/test_static.py::test_show_for_a_terminal",
    },
}

#: pages whose commands are for a balancer that runs; on the others they make one
RUNNING = {
    *("docs/operations.md", "docs/control.md", "docs/metrics.md", "docs/stats.md"),
    "docs/carrier.md",
}


@dataclass(frozen=True)
class Block:
    """Commands that are shown together; with ``expected``, each with its output."""

    page: str
    commands: tuple[str, ...]
    expected: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As a test's id."""
        return f"{self.page}: {self.commands[0][:40]}"

    @property
    def reason(self) -> str | None:
        """Why it is not run here."""
        start = ("$ " if self.expected else "") + self.commands[0]
        reasons = NOT_HERE.get(self.page, {})
        return next((why for begins, why in reasons.items() if start.startswith(begins)), None)


def blocks(page: str) -> Iterator[Block]:
    """The blocks of one page, in order; each command of a table is a block."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for kind, body in FENCED.findall(text):
        if kind == "sh":
            yield Block(page, (body.strip(),))
        else:
            parts = re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
            commands, printed = zip(*(part.split("\n", 1) for part in parts), strict=True)
            yield Block(page, commands, printed)
    for column, table in TABLE.findall(text):
        for row in table.splitlines()[2:]:
            for command in re.findall(r"`([^`]+)`", row.split("|")[int(column)]):
                yield Block(page, (command,))


BLOCKS = [block for page in PAGES for block in blocks(page)]


class Room:
    """The balancer of a network, with its own /run/paraglider, where commands are pasted."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.directory = directory
        self.namespace = namespace
        (directory / "empty").mkdir()
        (directory / "paraglider.config").symlink_to(ROOT / "paraglider.config")
        shutil.copytree(ROOT / "conf", directory / "conf")
        for file in (ROOT / "conf").glob("*.conf"):
            shutil.copy(file, directory)
        room = "/run/paraglider"
        apart = f"mkdir -p {room}; mount -t tmpfs -o mode=755 {room} {room}; echo; exec sleep inf"
        holder = namespace.popen(["unshare", "--mount", "sh", "-ec", apart], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        self._enter = ["nsenter", f"--target={holder.pid}", "--mount", "--net"]
        self.daemon: subprocess.Popen[bytes] | None = None
        self.environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def command(self, text: str) -> list[str]:
        """``bash`` with the text, as root and from the folder of the files."""
        text = re.sub(r"\bsudo ", "", text)
        inside = f"cd '{self.directory}'\n{text}"
        return [*self._enter, "bash", "-euo", "pipefail", "-c", inside]

    def paste(self, text: str) -> str:
        """Run it to its end; its exit code must be 0. Returns its output."""
        done = subprocess.run(
            self.command(text),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout

    def balance(self, text: str) -> subprocess.Popen[bytes]:
        """Start the daemon, and return it once it serves."""
        log = self.directory / "daemon.log"
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                self.command(f"exec {text}"), env=self.environment, stdout=output, stderr=output
            )
        wait_until(
            lambda: READY.search(log.read_text()) or daemon.poll() is not None, log.read_text
        )
        assert daemon.poll() is None, log.read_text()
        return daemon

    def end(self, daemon: subprocess.Popen[bytes]) -> None:
        """Ctrl-C."""
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(STOP_TIMEOUT) == 0, (self.directory / "daemon.log").read_text()

    def take(self, block: Block) -> None:
        """Paste a block as a reader would."""
        if block.expected:
            for command, expected in zip(block.commands, block.expected, strict=True):
                self.one(command, expected)
        elif any(DAEMON.fullmatch(bare(line)) for line in block.commands[0].splitlines()):
            for line in block.commands[0].splitlines():
                self.one(line, "")
        else:
            self.paste(block.commands[0])

    def one(self, command: str, expected: str) -> None:
        """Paste one command and compare its output with the page's, if it shows any."""
        if DAEMON.fullmatch(bare(command)):
            self.end(self.balance(bare(command)))
            return
        printed = self.paste(command)
        pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*")
        assert re.match(pattern, printed, re.DOTALL), (command, printed)


def bare(command: str) -> str:
    """Without sudo and without a comment."""
    return command.partition(" #")[0].strip().removeprefix("sudo ")


@pytest.fixture(scope="module")
def network() -> Iterator[Topology]:
    """One network for all; the set-ups of a page end with it."""
    made = Topology(Plan())
    for number, backend in enumerate(made.backends, 1):
        start_backend(backend, f"backend{number}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(network: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A running balancer, with a process of every kind; its service `web` uses nat."""
    room = Room(network.balancer, tmp_path_factory.mktemp("running"))
    web = {
        "name": "web",
        "vip": f"{VIP[4]}/24",
        "protocol": "tcp",
        "ports": 80,
        "backends": [backend_address(4, number) for number in (1, 2, 3)],
    }
    document = {
        "workers": {"first_core": 0, "last_core": 0},
        "network": {
            "public": {"interface": "eth0"},
            "private": {"interface": "eth1", "gateway": [f"{GATEWAY[4]}/8"]},
        },
        "stats": {"bind": "127.0.0.1:9777"},
        "chroot": str(room.directory / "empty"),
        "services": [
            {**web, "check": {"type": "tcp"}},
            {**web, "name": "kernel", "ports": 81, "forward": "offload", "strategy": "weighted"},
            {**web, "name": "proxy", "ports": 82, "forward": "proxy"},
        ],
    }
    (room.directory / "paraglider.conf").write_text(yaml.safe_dump(document))
    room.paste("./paraglider.config")
    room.daemon = room.balance("paraglider")
    yield room
    room.end(room.daemon)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[Block], Room]]:
    """A function that makes a room where nothing is set up, on the host that a block is for.

    Its paraglider.conf is the example that goes with the page.
    """
    made: list[Topology] = []

    def make(block: Block) -> Room:
        net = Topology(Plan())
        made.append(net)
        on_backend = block.commands[0].startswith("paraglider backend-setup")
        room = Room(net.backends[0] if on_backend else net.balancer, tmp_path)
        example = ROOT / "conf" / f"{Path(block.page).stem}.conf"
        if example.exists():
            shutil.copy(example, tmp_path / "paraglider.conf")
        return room

    yield make
    for net in made:
        net.close()


def test_the_pages_have_commands() -> None:
    """Blocks are found, and all are of a known kind."""
    assert len(BLOCKS) > 40
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert not re.search(r"^    (\$ |sudo |paraglider )", text, re.MULTILINE), page
        unnamed = [lines for lines in text.split("```")[1::2] if lines.startswith("\n")]
        assert not [lines for lines in unnamed if re.match(r"\n(\$ )?(sudo|paraglider) ", lines)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every file that a page links to is there, and every heading."""
    text = FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, heading = target.partition("#")
        place = (ROOT / page).parent / file if file else ROOT / page
        assert place.exists(), target
        if heading:
            assert heading in anchors(place.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """The anchor of a heading: its letters, digits and dashes, with dashes for spaces."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in headings}


def test_every_reason_is_of_a_block_and_true() -> None:
    """No reason is unused, and the tests that they name exist."""
    for page, reasons in NOT_HERE.items():
        used = {block.reason for block in BLOCKS if block.page == page}
        assert set(reasons.values()) <= used
        for reason in reasons.values():
            file, double_colon, name = reason.partition("::")
            if double_colon:
                assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), reason


def test_the_drawing_has_every_process() -> None:
    """The first page of the architecture names each role that a process of the source has."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawing = page.partition("## On one page")[2].split("```")[1]
    sources = (ROOT / "paraglider" / "daemon").rglob("*.py")
    role = re.compile(r'^    role: ClassVar\[str\] = "([\w ]+)"', re.MULTILINE)
    roles = {name for source in sources for name in role.findall(source.read_text())}
    assert len(roles) >= 6
    assert all(re.search(rf"\b{name}\b", drawing) for name in roles | {"supervisor"})


@pytest.mark.root
def test_the_rights_of_processes_are_those_of_the_page(running: Room) -> None:
    """The page's table has every process, with its user, its root directory and its rights."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    match = re.search(r"^<!-- processes -->\n(.*?)\n\n", page, re.MULTILINE | re.DOTALL)
    assert match is not None
    assert running.daemon is not None
    parent = running.daemon.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found = {}
    for pid in (str(parent), *children):
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if fields["Name"] == "nft":  # the supervisor looks at its table
            continue
        name = "paraglider" if pid == str(parent) else fields["Name"]
        user = "root" if fields["Uid"].startswith("0\t") else "`user`"
        locked_in = str(Path(f"/proc/{pid}/root").readlink()) != "/"
        place = "`chroot`" if locked_in else "`/`"
        confined = fields["Seccomp"] == "2"
        found[name] = (user, place, int(fields["CapPrm"], 16), confined)
        assert fields["CapEff"] == fields["CapPrm"]
        assert (fields["NoNewPrivs"], fields["Groups"].strip()) == ("1", "")
    told = {}
    for row in match[1].splitlines()[2:]:
        _, role, name, user, place, capabilities, filters, *_ = map(str.strip, row.split("|"))
        names = [] if capabilities == "none" else capabilities.split(", ")
        bits = sum(1 << getattr(prctl, f"CAP_{name}") for name in names)
        assert filters.partition(";")[0] == (role if role in ROLES else "none")
        told[name.strip("`")] = (user, place.partition(";")[0], bits, filters != "none")
    assert told == found


@pytest.mark.root
@pytest.mark.parametrize("block", [block for block in BLOCKS if block.reason is None], ids=str)
def test_commands(block: Block, request: pytest.FixtureRequest) -> None:
    """Their exit codes are 0, and their output is the page's."""
    if block.page in RUNNING:
        request.getfixturevalue("running").take(block)
    else:
        request.getfixturevalue("fresh")(block).take(block)

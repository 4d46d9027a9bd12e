"""`paraglider.config` as an operator runs it, in a namespace with eth0 and eth1."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from paraglider.cli.setup_host import setup_host
from paraglider.errors import OperatorError
from paraglider.host import bpffs
from paraglider.host.ownership import RUN_DIRECTORY
from paraglider.lab.namespace import Namespace

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(host: Namespace, run_in: Any) -> Iterator[Run]:
    """A function that runs the command in the namespace and checks its exit code. Every set-up is
    undone afterwards, so that no state of a removed namespace stays.
    """
    module = "paraglider.cli.setup_host"
    yield lambda *arguments, code=0: run_in(module, *arguments, code=code)
    host.run([sys.executable, "-m", module, "--undo"], check=False)


def test_nothing_is_imported_that_only_a_daemon_needs() -> None:
    """A set-up is short, and most of it would be that: the log, the loop, the DNS, the queues."""
    daemons = {"aiohttp", "asyncio", "dns", "netfilterqueue", "prctl", "rich", "scapy", "structlog"}
    program = (
        "import sys, paraglider.cli.setup_host\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('paraglider.')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    libraries, ours = (set(line.split()) for line in done.stdout.splitlines())
    assert "pydantic" in libraries
    assert not daemons & libraries
    assert not {"paraglider.daemon.log", "paraglider.netfilter.queue"} & ours


@pytest.mark.root
def test_undo_leaves_a_bare_host_as_it_was(
    host: Namespace, write: Any, run: Run, snapshot: Any
) -> None:
    """Byte for byte, and undoing twice is fine; no file is needed for it."""
    before = snapshot()
    done = run("-c", write())
    assert "done        sysctl net.ipv4.ip_forward 0 -> 1\n" in done.stdout
    assert "done        address 2001:db8::11/64 on eth0\n" in done.stdout
    assert snapshot() != before
    run("--undo")
    assert snapshot() == before
    assert run("--undo").stdout == "nothing to undo\n"


@pytest.mark.root
def test_undo_removes_journals(host: Namespace, write: Any, run: Run) -> None:
    """With the last family, and if there is nothing else to undo; the dry run lists it."""
    program = "from paraglider.host.ownership import netns_cookie; print(f'{netns_cookie():x}')"
    cookie = host.run([sys.executable, "-c", program]).stdout.strip()
    journal = RUN_DIRECTORY / f"flows-{cookie}-0-nat-0"
    run("-c", write())
    for arguments, there in ((["-6", "--undo"], True), (["--undo"], False)):
        journal.touch()
        run(*arguments)
        assert journal.exists() == there
    journal.touch()
    assert run("--undo", "--dry-run").stdout == f"rm -f {journal}\n"
    assert run("--undo").stdout == f"done        journal of flows {journal} removed\n1 done\n"
    assert not journal.exists()


@pytest.mark.root
def test_undo_removes_the_bpf_carrier(host: Namespace, write: Any, run: Run) -> None:
    """Also where nothing else is left; the dry run lists it. It is attached: to other tests'
    daemons it would be a leftover else.
    """
    root = bpffs.mounted(source="test")  # each program has a mount namespace, which ends with it
    program = (
        "import sys; from paraglider.forward.load import load_with_marks\n"
        "from paraglider.host import bpffs, carrier\n"
        "carrier.load(load_with_marks(sys.argv[1]).config, 1); print(bpffs.pins_path())"
    )
    pins = host.run([sys.executable, "-c", program, write()]).stdout.strip()
    assert run("--undo", "--dry-run").stdout == f"rm -r {pins}\n"
    assert run("--undo").stdout == f"done        BPF carrier {pins} removed\n1 done\n"
    assert not Path(pins).exists()
    os.close(root)
    bpffs.unmount(source="test")


@pytest.mark.root
def test_undo_leaves_a_lived_in_host_as_it_was(
    host: Namespace, foreign: None, write: Any, run: Run, snapshot: Any
) -> None:
    """Foreign rules, policies, tables, addresses, neighbours and odd sysctls survive."""
    before = snapshot()
    run("-c", write())
    assert "-P FORWARD DROP" in host.run(["iptables", "-S"]).stdout
    run("--undo")
    assert snapshot() == before


@pytest.mark.root
def test_a_second_run_changes_nothing(
    host: Namespace,
    write: Any,
    run: Run,
    snapshot: Any,
) -> None:
    """Not even a rule's handle: nothing is removed and added again."""
    run("-c", write())
    rules = host.run(["nft", "-a", "-s", "list", "ruleset"]).stdout
    before = snapshot().split("ip -4 address")[1]
    done = run("-c", write())
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} == {"unchanged"}
    assert host.run(["nft", "-a", "-s", "list", "ruleset"]).stdout == rules
    assert snapshot().split("ip -4 address")[1] == before


@pytest.mark.root
def test_a_dry_run_prints_and_changes_nothing(
    host: Namespace, write: Any, run: Run, snapshot: Any
) -> None:
    """The output is a script with the effect of the set-up."""
    before = snapshot()
    done = run("-c", write(), "--dry-run")
    assert snapshot() == before
    run("-c", write())
    wanted = snapshot()
    run("--undo")
    host.run(["sh", "-e"], text=done.stdout)
    strip = str.maketrans("", "", "0123456789")  # counters of rules, times of addresses
    assert snapshot().translate(strip) == wanted.translate(strip)


@pytest.mark.root
def test_the_dry_run_of_an_undo_can_be_pasted(
    host: Namespace, write: Any, run: Run, snapshot: Any
) -> None:
    """The script has the effect of the undo, except for the state file."""
    before = snapshot()
    run("-c", write())
    script = run("--undo", "--dry-run").stdout
    assert snapshot() != before
    host.run(["sh", "-e"], text=script)
    assert snapshot() == before
    run("--undo")
    assert snapshot() == before


@pytest.mark.root
def test_a_step_that_fails_half_way_rolls_all_back(
    host: Namespace, write: Any, run: Run, snapshot: Any
) -> None:
    """IPv6 is off on eth1, so its address is refused after everything else has been done."""
    host.sysctl("net.ipv6.conf.eth1.disable_ipv6=1")
    before = snapshot()
    done = run("-c", write(), code=2)
    assert "address fd00:10::fe/64 on eth1" in done.stderr
    assert "rolled back" in done.stderr
    assert "rolled back rules for IPv4" in done.stdout
    assert snapshot() == before
    assert run("--undo").stdout == "nothing to undo\n"


@pytest.mark.root
def test_a_changed_file_changes_what_differs(
    host: Namespace, write: Any, run: Run, snapshot: Any, web: Any, six: Any
) -> None:
    """The old VIP goes, the new one comes, and undoing leads to the beginning."""
    before = snapshot()
    run("-c", write())
    run("-c", write({**web, "vip": "192.168.0.12/24", "ports": 81}, six))
    shown = host.run(["ip", "-4", "address", "show", "dev", "eth0"]).stdout
    assert "192.168.0.12/24" in shown
    assert "192.168.0.11/24" not in shown
    assert "--dport 81 " in host.run(["iptables-save"]).stdout
    run("--undo")
    assert snapshot() == before


@pytest.mark.root
def test_families_are_set_up_one_by_one(
    host: Namespace, write: Any, run: Run, snapshot: Any
) -> None:
    """-6 leaves IPv4 unchanged, and so does its undo."""
    before = snapshot()
    run("-6", "-c", write())
    assert host.run(["iptables-save"]).stdout == ""
    assert "0" in host.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout
    run("-4", "-c", write())
    run("-6", "--undo")
    assert "PARAGLIDER" in host.run(["iptables-save"]).stdout
    assert "PARAGLIDER" not in host.run(["ip6tables-save"]).stdout
    run("--undo")
    assert snapshot() == before


@pytest.mark.root
def test_stray_chains_go_without_a_state(host: Namespace, run: Run) -> None:
    """If /run was lost, --undo finds our chains by name."""
    host.run(["iptables", "-t", "raw", "-N", "PARAGLIDER"])
    host.run(["iptables", "-t", "raw", "-A", "PREROUTING", "-j", "PARAGLIDER"])
    assert "stray rules for IPv4 removed" in run("--undo").stdout
    assert "PARAGLIDER" not in host.run(["iptables-save"]).stdout


@pytest.mark.root
def test_silent_backends_are_a_warning(write: Any, run: Run, web: Any) -> None:
    """The set-up succeeds."""
    done = run("-c", write({**web, "backends": ["10.0.0.1", "10.0.0.9"]}))
    assert "warning: backend 10.0.0.9: cannot resolve" in done.stderr
    assert "10.0.0.1 " not in done.stderr


@pytest.mark.root
def test_a_second_set_up_at_a_time_is_refused(host: Namespace, write: Any, run: Run) -> None:
    """Two at once would not see each other's changes."""
    holder = (
        "import signal\nfrom paraglider.host.state import setup_lock\n"
        "with setup_lock():\n print('held', flush=True)\n signal.pause()"
    )
    process = host.popen([sys.executable, "-c", holder], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    done = run("-c", write(), code=1)
    assert "another set-up of paraglider is running" in done.stderr
    process.kill()  # what is undone afterwards would wait for it too
    process.wait()


@pytest.mark.root
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"network": {"public": {"interface": "eth7"}}}, "no interface `eth7`"),
        ({"user": "nosuchuser"}, "no user 'nosuchuser'"),
        ({"chroot": "/nonexistent"}, "the chroot directory /nonexistent does not exist"),
        ({"workers": {"first_core": 4000, "last_core": 4001}}, "cores 4000-4001"),
    ],
)
def test_mistakes_are_reported_before_any_change(
    host: Namespace, write: Any, run: Run, change: dict[str, Any], told: str, snapshot: Any
) -> None:
    """Exit 1, one clear message, and the host as before."""
    before = snapshot()
    assert told in run("-c", write(**change), code=1).stderr
    assert snapshot() == before


@pytest.mark.root
def test_a_missing_interface_is_placed_in_the_file(write: Any, run: Run) -> None:
    """With file, line and column, as every mistake in the file."""
    file = write(network={"private": {"interface": "eth7"}})
    done = run("-c", file, code=1)
    line = Path(file).read_text().splitlines().index("    interface: eth7") + 1
    assert done.stderr.startswith(f"{file}:{line}:")


@pytest.mark.root
def test_a_missing_program_is_reported_before_any_change(
    host: Namespace, write: Any, tmp_path: Path, snapshot: Any
) -> None:
    """Without iptables, the message names the Debian package."""
    code = (
        "import shutil; from paraglider.netfilter import programs; which = shutil.which\n"
        "programs.shutil.which = lambda name, path=None: "
        "None if name.startswith('ip6tables') else which(name, path=path)\n"
        "from paraglider.cli.setup_host import entry; entry()"
    )
    before = snapshot()
    done = host.run([sys.executable, "-c", code, "-c", write()], check=False)
    assert done.returncode == 1
    assert "ip6tables-restore is missing; install it: apt-get install iptables" in done.stderr
    assert snapshot() == before


def test_a_family_without_services_is_a_mistake(write: Any, web: Any) -> None:
    """-6 with a file of IPv4 only is refused before root is required."""
    file = write(web, network={})
    with pytest.raises(OperatorError, match="has no IPv6 service"):
        CliRunner().invoke(setup_host, ["-6", "-c", file], catch_exceptions=False)


@pytest.mark.parametrize("arguments", [["--undo"], ["--dry-run"], []])
def test_without_root_sudo_is_the_remedy(
    write: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], web: Any
) -> None:
    """For every action, because even reading the rules needs root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/sudo")
    file = write(web, network={})
    with pytest.raises(OperatorError, match=r"run it as root: sudo paraglider\.config"):
        CliRunner().invoke(setup_host, ["-c", file, *arguments], catch_exceptions=False)


@pytest.mark.parametrize("linked", [False, True])
def test_the_launcher_of_a_clone_finds_its_environment(tmp_path: Path, linked: bool) -> None:
    """The script goes on in the clone's .venv, also by way of the link at the clone's root."""
    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/paraglider.config", clone / "scripts")
    (clone / "paraglider.config").symlink_to("scripts/paraglider.config")
    (clone / ".venv/bin").mkdir(parents=True)
    python = clone / ".venv/bin/python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    start = clone / ("paraglider.config" if linked else "scripts/paraglider.config")
    done = subprocess.run([start, "-6", "--undo"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(clone / "scripts/paraglider.config"), "-6", "--undo"]


def test_the_launcher_without_an_environment_names_the_remedy(tmp_path: Path) -> None:
    """No traceback of a missing module, but the command that makes the environment."""
    script = tmp_path / "scripts" / "paraglider.config"
    script.parent.mkdir()
    shutil.copy(ROOT / "scripts/paraglider.config", script)
    bare = Path(sys.executable).resolve()  # not the environment's, so without the package
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [bare, "-S", script], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("run scripts/bootstrap as root first")


def test_mistakes_may_be_left_to_the_daemon(tmp_path: Path) -> None:
    """An unreadable or invalid file: a message, no change, and exit code 0; without the option it
    is an error.
    """
    wrong = tmp_path / "wrong.conf"
    wrong.write_text("services: 1\n")
    for file in (wrong, tmp_path / "none.conf"):
        done = CliRunner().invoke(setup_host, ["--leave-mistakes", "-c", str(file)])
        assert (done.exit_code, done.exception) == (0, None)
        assert "warning: the host is not changed: " in done.output
        assert str(file) in done.output
        done = CliRunner().invoke(setup_host, ["-c", str(file)])
        assert isinstance(done.exception, OperatorError)

"""`paraglider start` as an operator runs it: changes, refusals, roll-back and undo."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from paraglider.cli.main import Options
from paraglider.cli.start import start
from paraglider.config.diagnostics import ConfigError
from paraglider.errors import OperatorError
from paraglider.lab.namespace import Namespace

SET_UP = "paraglider.cli.setup_host"


@pytest.fixture
def run(run_in: Any) -> Iterator[Callable[..., Any]]:
    """A function that runs `paraglider`; what it started is stopped afterwards."""
    yield lambda *arguments, code=0: run_in("paraglider", *arguments, code=code)
    run_in("paraglider", "stop")


def ruleset(host: Namespace) -> str:
    """All rules of nft with their handles, without counters."""
    return host.run(["nft", "-a", "-s", "list", "ruleset"]).stdout


def invoke(file: str, families: tuple[int, ...] = (4, 6)) -> None:
    """`start` in this process, up to its check of privileges."""
    options = Options(None, frozenset(families), failover=False)
    CliRunner().invoke(start, ["-c", file], obj=options, catch_exceptions=False)


@pytest.fixture
def nobodys(tmp_path: Path) -> Path:
    """A file whose control socket no daemon has; at the default one another test's may listen."""
    file = tmp_path / "nobodys.conf"
    file.write_text(f"control: {{socket: {tmp_path / 'control.sock'}}}\n")
    return file


@pytest.mark.root
def test_stop_leaves_a_bare_host_as_it_was(write: Any, run: Any, snapshot: Any) -> None:
    """Byte for byte; it needs no file, and a second one has nothing to do."""
    before = snapshot()
    done = run("start", "-c", write())
    assert "done        table ip paraglider: 1 backend\n" in done.stdout
    assert "done        address 2001:db8::11/64 on eth0\n" in done.stdout
    assert snapshot() != before
    run("stop")
    assert snapshot() == before
    assert run("stop").stdout == "nothing is started\n"


@pytest.mark.root
def test_stop_leaves_a_lived_in_host_as_it_was(
    host: Namespace, foreign: None, write: Any, run: Any, snapshot: Any
) -> None:
    """Foreign rules, policies, tables, addresses, neighbours and odd sysctls survive."""
    before = snapshot()
    run("start", "-c", write())
    assert "-P FORWARD DROP" in host.run(["iptables", "-S"]).stdout
    run("stop")
    assert snapshot() == before


@pytest.mark.root
def test_a_start_that_changes_nothing(host: Namespace, write: Any, run: Any, web: Any) -> None:
    """Not even a rule's handle, and the output says so; also after two opposite changes, which
    leave no counter.
    """
    counters = ["nft", "list", "counters", "table", "ip", "paraglider"]
    run("start", "-c", write())
    first = host.run(counters).stdout
    more = {**web, "backends": ["10.0.0.1", "10.0.0.2"]}
    run("start", "-c", write(more))
    assert host.run(counters).stdout.count("counter") == first.count("counter") + 3
    run("start", "-c", write())
    assert host.run(counters).stdout == first
    rules = ruleset(host)
    done = run("start", "-c", write())
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} == {"unchanged"}
    assert ruleset(host) == rules


@pytest.mark.root
def test_a_dry_run_is_a_script(host: Namespace, write: Any, run: Any, snapshot: Any) -> None:
    """It changes nothing, and its script has the effect of `start`; that of `stop` the effect of
    `stop`.
    """
    before = snapshot()
    script = run("start", "-c", write(), "--dry-run").stdout
    assert snapshot() == before
    run("start", "-c", write())
    wanted = snapshot()
    end = run("stop", "--dry-run").stdout
    run("stop")
    host.run(["sh", "-e"], text=script)
    strip = str.maketrans("", "", "0123456789")  # counters of rules, times of addresses
    assert snapshot().translate(strip) == wanted.translate(strip)
    without_conntrack = "".join(
        line for line in end.splitlines(True) if not line.startswith("conntrack")
    )
    host.run(["sh", "-e"], text=without_conntrack)
    assert snapshot() == before


@pytest.mark.root
def test_families_one_by_one(host: Namespace, write: Any, run: Any, snapshot: Any) -> None:
    """-6 leaves IPv4 unchanged, at the start and at the stop."""
    before = snapshot()
    run("-6", "start", "-c", write())
    assert host.run(["iptables-save"]).stdout == ""
    run("-4", "start", "-c", write())
    run("-6", "stop")
    assert "ip paraglider" in host.run(["nft", "list", "tables"]).stdout
    assert "ip6 paraglider" not in host.run(["nft", "list", "tables"]).stdout
    run("stop")
    assert snapshot() == before


@pytest.mark.root
def test_what_the_kernel_refuses_is_rolled_back(
    host: Namespace, write: Any, run: Any, snapshot: Any
) -> None:
    """IPv6 is off on eth1, so its address is refused after everything else has been done."""
    host.sysctl("net.ipv6.conf.eth1.disable_ipv6=1")
    before = snapshot()
    done = run("start", "-c", write(), code=2)
    assert "everything done before it was rolled back" in done.stderr
    assert "rolled back rules for IPv4" in done.stdout
    assert snapshot() == before
    assert run("stop").stdout == "nothing is started\n"


@pytest.mark.root
def test_a_host_that_is_set_up_for_the_daemon(
    write: Any, run: Any, run_in: Any, host: Namespace, nobodys: Path
) -> None:
    """`start` is refused, `show` needs the daemon, and nothing changes."""
    run_in(SET_UP, "-c", write())
    try:
        before = ruleset(host)
        done = run("start", "-c", write(), code=1)
        assert "set up by `paraglider.config`; undo that first: paraglider.config --undo" in (
            done.stderr
        )
        assert "no paraglider answers at" in run("show", "-c", str(nobodys), code=1).stderr
        assert ruleset(host) == before
    finally:
        run_in(SET_UP, "--undo")


@pytest.mark.root
def test_a_host_that_is_started(write: Any, run: Any, run_in: Any, host: Namespace) -> None:
    """The set-up, its undo and the daemon are refused, and each names the remedy."""
    run("start", "-c", write())
    before = ruleset(host)
    for arguments in (["-c", write()], ["--undo"]):
        done = run_in(SET_UP, *arguments, code=1)
        assert "by `paraglider start`; undo that first: paraglider stop" in done.stderr
    done = run("-c", write(), code=1)
    assert "first run paraglider stop, then paraglider.config" in done.stderr
    assert ruleset(host) == before


@pytest.mark.root
def test_nothing_started_is_nothing_shown(run: Any, nobodys: Path) -> None:
    """Without a daemon either: `show` says so, with the remedy."""
    for arguments in ([], ["--json"]):
        done = run("show", "-c", str(nobodys), *arguments, code=1)
        assert done.stdout == ""
        assert "no paraglider answers at" in done.stderr
        assert "start it" in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"forward": "proxy", "ports": 80}, "`forward: proxy` takes a daemon"),
        ({"return": "direct"}, "`return: direct` takes a daemon"),
        ({"strategy": "maglev"}, "write one of: rr, source, weighted, wrr; or run the daemon"),
        ({"strategy": "mine:Own"}, "the kernel runs no Python"),
        ({"backends": ["fd00::1"]}, "each family needs a service of its own"),
    ],
)
def test_what_takes_a_daemon_is_refused_with_its_place(
    write: Any, web: Any, change: dict[str, Any], words: str
) -> None:
    """FILE:LINE:COL, what, and the remedy."""
    file = write({**web, **change}, network={})
    with pytest.raises(ConfigError) as caught:
        invoke(file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{file}:")
    assert words in line


def test_an_interface_that_is_not_there(write: Any) -> None:
    """The file's own mistake, at its place."""
    with pytest.raises(ConfigError, match="no interface `eth99` on this host"):
        invoke(write(network={"public": {"interface": "eth99"}}))


def test_a_family_without_services_is_a_mistake(write: Any, web: Any) -> None:
    """-6 with a file of IPv4 only."""
    with pytest.raises(OperatorError, match="has no IPv6 service"):
        invoke(write(web, network={}), (6,))


@pytest.mark.parametrize("command", ["start", "stop", "show"])
def test_without_root_sudo_is_the_remedy(
    write: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """For all three commands, because even reading the rules needs root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    module = __import__(f"paraglider.cli.{command}", fromlist=[command])
    options = Options(None, frozenset({4, 6}), failover=False)
    with pytest.raises(OperatorError, match=f"run it as root: (sudo )?paraglider {command}"):
        CliRunner().invoke(
            getattr(module, command),
            ["-c", write(network={})],
            obj=options,
            catch_exceptions=False,
        )


def test_cautions_are_warnings(
    write: Any, web: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, at their place, and nothing is stopped by them."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    heavy = [{"address": f"10.0.0.{n}", "weight": weight} for n, weight in ((1, 9999), (2, 2))]
    file = write({**web, "strategy": "weighted", "backends": heavy}, network={})
    options = Options(None, frozenset({4, 6}), failover=False)
    with pytest.raises(OperatorError, match="needs root"):
        start.main(["-c", file], obj=options, standalone_mode=False)
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"warning: {Path(file)}:") for line in said)
    assert len(said) == 2
    assert any("`strategy: weighted` is wrr here" in line for line in said)
    assert any("rounded to parts of 4096" in line for line in said)
